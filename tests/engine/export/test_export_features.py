"""LoRA adapters and structured output beside plain requests in one engine, on both model runners."""

from collections.abc import Callable
from pathlib import Path

import models
import pytest
from export_harness import Job, check_export, compare, random_prompts, run

pytestmark = pytest.mark.vllm

SITECUSTOMIZE = '''
"""Lets Triton's interpreter stand in for a GPU: vLLM's V2 runner is written in Triton."""
import os

if os.environ.get("TRITON_INTERPRET") == "1":
    from types import SimpleNamespace

    from triton.backends import Backend, backends
    from triton.backends.driver import DriverBase

    class CpuDriver(DriverBase):
        @classmethod
        def is_active(cls):
            return True

        def __init__(self):
            pass

        def map_python_to_cpp_type(self, ty):
            return ty

        def get_current_target(self):
            return SimpleNamespace(backend="cpu", arch="cpu", warp_size=1)

        def get_active_torch_device(self):
            import torch

            return torch.device("cpu")

        def get_benchmarker(self):
            raise NotImplementedError

        def get_current_device(self):
            return 0

        def get_current_stream(self, device=None):
            return 0

    backends.clear()
    backends["cpu"] = Backend(compiler=None, driver=CpuDriver)
'''


def test_adapters_and_structured_output(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    model, adapter = tiny_model("llama"), models.build_adapter(tmp_path / "adapter")
    job = Job(
        model=model,
        prompts=random_prompts([6, 40, 70, 20, 15, 30]),
        max_tokens=[14, 10, 12, 20, 20, 10],
        adapters=[None, adapter, adapter, None, None, None],
        sampling=[
            {},
            {},
            {},
            {"choice": ["shortest", "first"], "ignore_eos": False},
            {"regex": "[0-9]{6}", "ignore_eos": False},
            {},
        ],
        engine={
            "enforce_eager": True,
            "max_num_batched_tokens": 64,
            "max_num_seqs": 8,
            "enable_lora": True,
            "max_lora_rank": 8,
            # vLLM's CPU kernels take slot -1, the last one, for requests without an adapter: leave it empty.
            "max_loras": 2,
            "skip_tokenizer_init": False,
        },
    )
    result = run(job, tmp_path / "run")
    found = check_export(result, layer=2)
    assert found.mean_prompts == len(job.prompts)
    choice, digits = (models.decode(model, result.outputs[i]) for i in (3, 4))
    assert choice in ("shortest", "first")
    assert len(digits) == 6
    assert digits.isdigit()


def test_v2_runner_through_tritons_interpreter(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    """Few KV blocks as well: this runner gets a resumed request announced as if it were a first-time one."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    job = Job(
        model=tiny_model("llama"),
        prompts=random_prompts([5, 12, 20, 25, 28, 30, 31, 70]),
        max_tokens=[40] * 8,
        engine={
            "enforce_eager": True,
            "max_model_len": 128,
            "max_num_batched_tokens": 48,
            "max_num_seqs": 8,
            "num_gpu_blocks_override": 9,
        },
        environ={
            "VLLM_USE_V2_MODEL_RUNNER": "1",
            "TRITON_INTERPRET": "1",
            "PYTHONPATH": f"{tmp_path / 'site'}:{Path(models.__file__).parents[2] / 'sidecar'}",
        },
    )
    result = run(job, tmp_path / "run")
    assert "Using V2 Model Runner" in result.log
    assert result.preemptions >= 1
    found = check_export(result, layer=2)
    assert found.token_rows == 8 * 39
    assert compare(result, 2, against=3).difference > 0.05
