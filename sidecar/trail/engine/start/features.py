"""Which vLLM features TRAIL does not work with: each has a sentence, and turns TRAIL off."""

from collections.abc import Callable, Sequence
from typing import Any

PLATFORM_WORKERS = ("vllm.v1.worker.cpu_worker.CPUWorker", "vllm.v1.worker.gpu_worker.Worker")
"""The workers that `trail.engine.export.worker` extends."""

_Check = tuple[Callable[[Any], bool], str]

_CHECKS: tuple[_Check, ...] = (
    (
        lambda c: c.model_config.is_encoder_decoder,
        "encoder-decoder models: the decoder's layers do not see the prompt",
    ),
    (lambda c: c.model_config.runner_type != "generate", "pooling models: they generate nothing"),
    (
        lambda c: c.speculative_config is not None,
        "speculative decoding: it uses the same hidden-state interface, and a step yields several tokens",
    ),
    (lambda c: c.diffusion_config is not None, "diffusion models: they do not generate token by token"),
    (
        lambda c: c.kv_transfer_config is not None,
        "KV connectors: tokens computed elsewhere have no hidden states here",
    ),
    (
        lambda c: c.ec_transfer_config is not None,
        "encoder-cache connectors: the model is spread over engines",
    ),
    (
        lambda c: c.cache_config.kv_sharing_fast_prefill,
        "--kv-sharing-fast-prefill: later layers skip prompt tokens",
    ),
    (
        lambda c: c.parallel_config.use_ubatching,
        "dual batch overlap: a step's tokens are split over two batches",
    ),
    (
        lambda c: c.parallel_config.pipeline_parallel_size > 1,
        "pipeline parallelism: steps overlap there, and an engine with TRAIL's scheduler was seen to hang",
    ),
    (
        lambda c: (
            c.parallel_config.prefill_context_parallel_size > 1
            or c.parallel_config.decode_context_parallel_size > 1
        ),
        "context parallelism: a rank holds a part of each request's tokens",
    ),
    (
        lambda c: c.parallel_config.nnodes > 1 or c.parallel_config.distributed_executor_backend == "ray",
        "engines over several nodes: shared memory does not reach across",
    ),
    (
        lambda c: c.parallel_config.distributed_executor_backend == "external_launcher",
        "the external launcher: it runs a scheduler in every rank",
    ),
    (
        lambda c: not isinstance(c.additional_config, dict),
        "an additional_config that is not a dictionary: TRAIL keeps its layers there",
    ),
)


def unsupported(vllm_config: Any, layers: Sequence[int]) -> list[str]:
    """Why TRAIL cannot run with this configuration, a sentence a reason; empty when it can.

    `layers` are indices of Hugging Face `hidden_states`; empty when nothing is exported.
    """
    reasons = [reason for applies, reason in _CHECKS if applies(vllm_config)]
    if layers:
        reasons += _worker_reasons(vllm_config) + _layer_reasons(vllm_config, layers)
    return reasons


def _worker_reasons(vllm_config: Any) -> list[str]:
    worker = vllm_config.parallel_config.worker_cls
    if worker in PLATFORM_WORKERS:
        return []
    return [f"this platform's worker {worker}: TRAIL extends {' and '.join(PLATFORM_WORKERS)}"]


def _layer_reasons(vllm_config: Any, layers: Sequence[int]) -> list[str]:
    total = vllm_config.model_config.get_total_num_hidden_layers()
    outside = [k for k in layers if not 0 <= k < total]
    if not outside:
        return []
    return [f"layers {outside}: this model has hidden_states[0] to hidden_states[{total - 1}]"]
