"""vLLM's own scheduler without a model: somebody else says which tokens came."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

MAX_MODEL_LEN = 512
_SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": MAX_MODEL_LEN,
}


@functools.cache
def _model() -> ModelConfig:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "config.json").write_text(json.dumps(_SHAPE))
        return ModelConfig(
            model=directory, skip_tokenizer_init=True, dtype="float32", seed=0, max_model_len=MAX_MODEL_LEN
        )


def scheduler_arguments(
    *,
    slots: int,
    token_budget: int,
    kv_blocks: int,
    block_tokens: int,
    prefix_cache: bool = True,
    chunked_prefill: bool = True,
    whole_prompt_must_fit: bool = True,
) -> dict[str, Any]:
    """What a scheduler class of vLLM is made with."""
    scheduler = SchedulerConfig(
        max_num_seqs=slots,
        max_num_batched_tokens=max(token_budget, slots),
        max_model_len=MAX_MODEL_LEN,
        enable_chunked_prefill=True,
        is_encoder_decoder=False,
        scheduler_reserve_full_isl=whole_prompt_must_fit,
    )
    cache = CacheConfig(block_size=block_tokens, enable_prefix_caching=prefix_cache)
    config = VllmConfig(
        model_config=_model(),
        cache_config=cache,
        scheduler_config=scheduler,
        device_config=DeviceConfig("cpu"),
    )
    # Checked against the model's length, which no request here comes near to.
    scheduler.enable_chunked_prefill = chunked_prefill
    scheduler.max_num_batched_tokens = scheduler.max_num_scheduled_tokens = token_budget
    cache.num_gpu_blocks = kv_blocks + 1  # vLLM's null block
    spec = FullAttentionSpec(block_size=block_tokens, num_kv_heads=1, head_size=1, dtype=torch.float32)
    groups = [KVCacheGroupSpec(["layer"], spec)]
    return {
        "vllm_config": config,
        "kv_cache_config": KVCacheConfig(
            num_blocks=kv_blocks + 1, kv_cache_tensors=[], kv_cache_groups=groups
        ),
        "structured_output_manager": StructuredOutputManager(config),
        "block_size": block_tokens,
    }


@functools.cache
def _hasher(block_tokens: int) -> Any:
    init_none_hash(sha256)
    return get_request_block_hasher(block_tokens, sha256)


def bare_request(number: int, prompt_tokens: int, output_tokens: int, block_tokens: int) -> Request:
    """One whose prompt begins like no other's."""
    params = SamplingParams(max_tokens=output_tokens, ignore_eos=True)
    return Request(str(number), [number] * prompt_tokens, params, None, block_hasher=_hasher(block_tokens))


def give_tokens(scheduler: AsyncScheduler, output: Any) -> None:
    """Every scheduled request whose known tokens are all computed gets its next token."""
    ids = list(output.num_scheduled_tokens)
    requests = [scheduler.requests[i] for i in ids]
    sampled = [[7] if r.num_computed_tokens >= r.num_tokens else [] for r in requests]
    runner = ModelRunnerOutput(
        req_ids=ids, req_id_to_index={i: place for place, i in enumerate(ids)}, sampled_token_ids=sampled
    )
    scheduler.update_from_output(output, runner)
