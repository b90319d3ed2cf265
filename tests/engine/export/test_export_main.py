"""One busy compiled engine: chunked prefill, 16 concurrent requests, preemptions, prefix cache."""

from collections.abc import Callable
from pathlib import Path

import pytest
from export_harness import BESIDE, TOLERANCE, Job, Run, check_export, compare, random_prompts, run

pytestmark = pytest.mark.vllm
CROWD = 24


@pytest.fixture(scope="module")
def busy(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A long prompt, then two that share its first 64 tokens, then a crowd that outgrows the KV cache."""
    first = random_prompts([150])[0]
    shared = [first[:64] + tail for tail in random_prompts([20, 70], seed=1)]
    crowd = random_prompts([5 + i for i in range(CROWD - 2)] + [130, 150], seed=2)
    job = Job(
        model=tiny_model("llama"),
        prompts=[first, *shared, *crowd],
        max_tokens=[5, 5, 5] + [60 + i for i in range(CROWD)],
        waves=[1, 2, CROWD],
        engine={
            "max_model_len": 256,
            "max_num_batched_tokens": 64,
            "max_num_seqs": 16,
            "enable_chunked_prefill": True,
            "enable_prefix_caching": True,
            "num_gpu_blocks_override": 15,
        },
    )
    return run(job, tmp_path_factory.mktemp("busy"))


def test_every_vector_equals_hugging_face(busy: Run) -> None:
    found = check_export(busy, layer=2)
    assert found.token_rows == sum(busy.job.max_tokens) - len(busy.job.max_tokens)


def test_the_engine_was_forced_to_preempt(busy: Run) -> None:
    assert busy.preemptions >= 16


def test_a_prefix_cache_hit_gives_the_last_prompt_token_instead_of_a_wrong_mean(busy: Run) -> None:
    found = compare(busy, 2)
    assert found.last_prompts >= 2
    assert found.mean_prompts >= CROWD


def test_no_position_comes_twice(busy: Run) -> None:
    rows = [(int(r["key"]), int(r["position"]), int(r["layer"])) for r in busy.rows]
    assert len(rows) == len(set(rows))


def test_the_layer_beside_would_be_noticed(busy: Run) -> None:
    for beside in (1, 3):
        assert compare(busy, 2, against=beside).difference > max(BESIDE, 1000 * TOLERANCE)


def test_the_plugin_said_what_it_does(busy: Run) -> None:
    assert "TRAIL is on: exporting layers [2]" in busy.log
    assert "auxiliary-hidden-state interface" in busy.log
