"""Other architectures: with the auxiliary-hidden-state interface, and without it through the forward hook."""

from collections.abc import Callable
from pathlib import Path

import pytest
from export_harness import Job, check_export, random_prompts, run

pytestmark = pytest.mark.vllm
AUXILIARY, HOOK = "auxiliary-hidden-state interface", "forward hook"


@pytest.mark.parametrize(
    ("kind", "interface", "eager"),
    [
        ("qwen3", AUXILIARY, True),
        ("mistral", AUXILIARY, True),
        ("qwen3_moe", AUXILIARY, True),
        ("gemma3", HOOK, True),
        ("gpt2", HOOK, False),
    ],
)
def test_architecture(
    kind: str, interface: str, eager: bool, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Two layers at once, every second token, prompts cut into chunks of 32 tokens."""
    job = Job(
        model=tiny_model(kind),
        prompts=random_prompts([3, 20, 40, 77, 110]),
        max_tokens=[12, 9, 30, 21, 16],
        layers=(1, 3),
        export_every=2,
        engine={
            "enforce_eager": eager,
            "max_num_batched_tokens": 32,
            "max_num_seqs": 8,
            "distributed_executor_backend": "uni",
        },
        environ={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
    )
    result = run(job, tmp_path / "run")
    assert interface in result.log
    for layer in job.layers:
        found = check_export(result, layer)
        assert found.mean_prompts == len(job.prompts)
        assert found.token_rows == sum((n - 1) // 2 for n in job.max_tokens)
