"""The export with the model spread over processes: tensor and data parallel."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from export_harness import Job, check_export, random_prompts, run

pytestmark = pytest.mark.vllm
UNBOUND = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""vLLM otherwise wants a NUMA node for each worker."""
EAGER = {"enforce_eager": True, "max_num_batched_tokens": 64, "max_num_seqs": 8}


def stories_or(fallback: Path) -> Path:
    """The real model stories260K where TRAIL_SHARED holds it (its hidden size is the tiny models')."""
    found = Path(os.environ.get("TRAIL_SHARED", "")) / "data" / "models" / "stories260K-f32"
    return found if "TRAIL_SHARED" in os.environ and found.is_dir() else fallback


def test_tensor_parallel(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    job = Job(
        model=stories_or(tiny_model("llama")),
        prompts=random_prompts([4, 50, 90, 120]),
        max_tokens=[20, 15, 10, 25],
        engine={**EAGER, "tensor_parallel_size": 2},
        environ=UNBOUND,
    )
    found = check_export(run(job, tmp_path / "run"), layer=2)
    assert found.mean_prompts == 4
    assert found.token_rows == 66


def test_data_parallel_has_one_ring_an_engine(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    job = Job(
        model=tiny_model("llama"),
        prompts=random_prompts([4, 50, 90, 33]),
        max_tokens=[20, 15, 10, 8],
        engines=2,
        engine={**EAGER, "data_parallel_size": 2},
        environ=UNBOUND,
    )
    result = run(job, tmp_path / "run")
    check_export(result, layer=2)
    assert all(result.rows_per_engine)
