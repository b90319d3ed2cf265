"""Everything of vLLM that TRAIL uses, checked at start-up; what is missing turns TRAIL off by name.

vLLM calls none of it public, so each entry says what it is used for.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """`name` is `function`, `Class` or `Class.attribute` in `module`; an attribute may be a method, a class
    variable, a field, or set on `self` in any method, also in a base class. `parameters` are names that the
    function or method must take."""

    module: str
    name: str
    why: str
    parameters: tuple[str, ...] = ()


_GPU_RUNNER = "vllm.v1.worker.gpu_model_runner"
_V2_RUNNER = "vllm.v1.worker.gpu.model_runner"
_OUTPUT = "vllm.v1.core.sched.output"

PLUGIN = (
    Need("vllm.engine.arg_utils", "EngineArgs.create_engine_config", "switching TRAIL on"),
    Need("vllm.engine.arg_utils", "EngineArgs.worker_cls", "leaving a user's worker alone"),
    Need("vllm.engine.arg_utils", "EngineArgs.scheduler_cls", "leaving a user's scheduler alone"),
    Need("vllm.config.parallel", "ParallelConfig.worker_cls", "naming the worker"),
    Need("vllm.config.scheduler", "SchedulerConfig.scheduler_cls", "naming the scheduler"),
    Need("vllm.config.vllm", "VllmConfig.additional_config", "keeping compiled graphs apart"),
    Need("vllm.config.model", "ModelConfig.get_total_num_hidden_layers", "checking the layers"),
    Need("vllm.config.model", "ModelConfig.is_encoder_decoder", "refusing encoder-decoder models"),
    Need("vllm.config.model", "ModelConfig.runner_type", "refusing pooling models"),
    *(
        Need("vllm.config.vllm", f"VllmConfig.{name}", "refusing what TRAIL does not work with")
        for name in ("speculative_config", "diffusion_config", "kv_transfer_config", "ec_transfer_config")
    ),
    *(
        Need("vllm.config.parallel", f"ParallelConfig.{name}", "refusing what TRAIL does not work with")
        for name in (
            "use_ubatching",
            "prefill_context_parallel_size",
            "decode_context_parallel_size",
            "pipeline_parallel_size",
            "nnodes",
            "distributed_executor_backend",
        )
    ),
    Need(
        "vllm.config.cache", "CacheConfig.kv_sharing_fast_prefill", "refusing what TRAIL does not work with"
    ),
)
WORKER = (
    Need("vllm.v1.worker.gpu_worker", "Worker.load_model", "asking the model for its layers"),
    Need(
        "vllm.v1.worker.gpu_worker", "Worker.execute_model", "exporting after a step", ("scheduler_output",)
    ),
    Need("vllm.v1.worker.gpu_worker", "Worker.get_model", "asking the model for its layers"),
    Need("vllm.v1.worker.gpu_worker", "Worker.model_runner", "reading the step"),
    Need("vllm.v1.worker.gpu_worker", "Worker.device", "choosing the transfer"),
    Need("vllm.v1.worker.gpu_worker", "Worker.shutdown", "letting go of the ring"),
    Need("vllm.v1.worker.worker_base", "WorkerBase.vllm_config", "reading the configuration"),
    Need("vllm.config.model", "ModelConfig.get_hidden_size", "sizing the frames"),
    Need("vllm.config.model", "ModelConfig.dtype", "naming the frames' dtype"),
    Need("vllm.config.scheduler", "SchedulerConfig.max_num_seqs", "sizing the buffers"),
    Need("vllm.config.scheduler", "SchedulerConfig.max_num_batched_tokens", "sizing the buffers"),
    Need("vllm.config.parallel", "ParallelConfig.data_parallel_index", "naming the ring"),
    Need("vllm.distributed.parallel_state", "get_tp_group", "exporting from one rank"),
    Need("vllm.distributed.parallel_state", "GroupCoordinator.rank_in_group", "exporting from one rank"),
    Need("vllm.model_executor.models.interfaces", "supports_eagle3", "choosing the interface"),
    Need(
        "vllm.model_executor.models.interfaces",
        "SupportsEagle3.set_aux_hidden_state_layers",
        "asking the model for its layers",
        ("layers",),
    ),
    Need(
        _GPU_RUNNER, "GPUModelRunner.use_aux_hidden_state_outputs", "keeping the layers' outputs (V1 runner)"
    ),
    Need(_GPU_RUNNER, "GPUModelRunner.execute_model_state", "reading the step (V1 runner)"),
    Need(_GPU_RUNNER, "GPUModelRunner.query_start_loc", "finding a request's tokens (V1 runner)"),
    Need(_GPU_RUNNER, "GPUModelRunner.input_batch", "finding the requests (V1 runner)"),
    Need(_GPU_RUNNER, "ExecuteModelState.aux_hidden_states", "reading the layers (V1 runner)"),
    Need("vllm.v1.worker.gpu_input_batch", "InputBatch.req_ids", "finding the requests (V1 runner)"),
    Need("vllm.v1.worker.gpu_input_batch", "InputBatch.num_reqs", "finding the requests (V1 runner)"),
    Need("vllm.v1.worker.gpu_input_batch", "InputBatch.num_computed_tokens_cpu", "positions (V1 runner)"),
    Need(
        _V2_RUNNER, "GPUModelRunner.use_aux_hidden_state_outputs", "keeping the layers' outputs (V2 runner)"
    ),
    Need(_V2_RUNNER, "GPUModelRunner.execute_model_state", "reading the step (V2 runner)"),
    Need(_V2_RUNNER, "ExecuteModelState.aux_hidden_states", "reading the layers (V2 runner)"),
    Need(_V2_RUNNER, "ExecuteModelState.input_batch", "finding the requests (V2 runner)"),
    Need("vllm.v1.worker.gpu.input_batch", "InputBatch.req_ids", "finding the requests (V2 runner)"),
    Need("vllm.v1.worker.gpu.input_batch", "InputBatch.num_reqs", "finding the requests (V2 runner)"),
    Need("vllm.v1.worker.gpu.input_batch", "InputBatch.query_start_loc_np", "a request's tokens (V2 runner)"),
    Need("vllm.v1.worker.gpu.input_batch", "InputBatch.num_computed_tokens_np", "positions (V2 runner)"),
    Need(_OUTPUT, "SchedulerOutput.scheduled_new_reqs", "following requests"),
    Need(_OUTPUT, "SchedulerOutput.finished_req_ids", "following requests"),
    Need(_OUTPUT, "NewRequestData.req_id", "following requests"),
    Need(_OUTPUT, "NewRequestData.prompt_token_ids", "the prompt's length"),
    Need(_OUTPUT, "NewRequestData.prompt_embeds", "the prompt's length"),
)
_SCHEDULER = "vllm.v1.core.sched.scheduler"
_REQUEST = "vllm.v1.request"


def _attributes(module: str, owner: str, why: str, *names: str) -> tuple[Need, ...]:
    return tuple(Need(module, f"{owner}.{name}", why) for name in names)


SCHEDULER = (
    Need("vllm.v1.core.sched.async_scheduler", "AsyncScheduler.schedule", "ordering before each step"),
    Need("vllm.v1.core.sched.async_scheduler", "AsyncScheduler.add_request", "noting requests", ("request",)),
    Need(_SCHEDULER, "Scheduler._free_request", "noting the end of requests", ("request",)),
    Need(_SCHEDULER, "Scheduler._preempt_request", "preempting", ("request", "timestamp")),
    Need(_SCHEDULER, "Scheduler.shutdown", "ending the lifecycle stream"),
    Need(_SCHEDULER, "Scheduler.get_request_counts", "reporting load"),
    *_attributes(_SCHEDULER, "Scheduler", "ordering", "running", "waiting", "requests"),
    *_attributes(_SCHEDULER, "Scheduler", "KV memory", "kv_cache_manager", "kv_cache_config", "block_size"),
    *_attributes(_SCHEDULER, "Scheduler", "limits", "max_num_running_reqs", "max_num_scheduled_tokens"),
    *_attributes(_SCHEDULER, "Scheduler", "limits", "max_model_len", "num_waiting_for_streaming_input"),
    *_attributes(_SCHEDULER, "Scheduler", "not admitting while paused", "pause_state"),
    *_attributes(_SCHEDULER, "Scheduler", "configuration", "vllm_config", "scheduler_config", "lora_config"),
    Need("vllm.config.scheduler", "SchedulerConfig.policy", "leaving another policy alone"),
    Need("vllm.config.lora", "LoRAConfig.max_loras", "adapters in one batch"),
    Need("vllm.v1.kv_cache_interface", "KVCacheConfig.kv_cache_groups", "KV memory"),
    Need("vllm.v1.core.kv_cache_manager", "KVCacheManager.block_pool", "KV memory"),
    Need("vllm.v1.core.kv_cache_manager", "KVCacheManager.usage", "KV memory"),
    Need("vllm.v1.core.kv_cache_manager", "KVCacheManager.enable_caching", "what a preemption may cost"),
    Need("vllm.v1.core.block_pool", "BlockPool.num_gpu_blocks", "KV memory"),
    Need("vllm.v1.core.block_pool", "BlockPool.get_num_free_blocks", "KV memory"),
    Need("vllm.v1.core.sched.request_queue", "RequestQueue.add_request", "ordering", ("request",)),
    Need("vllm.v1.core.sched.request_queue", "RequestQueue.prepend_request", "ordering", ("request",)),
    Need("vllm.v1.core.sched.request_queue", "RequestQueue.remove_request", "ordering", ("request",)),
    Need("vllm.v1.core.sched.request_queue", "RequestQueue.remove_requests", "ordering", ("requests",)),
    Need("vllm.v1.core.sched.request_queue", "FCFSRequestQueue", "ordering"),
    Need(_OUTPUT, "SchedulerOutput.num_scheduled_tokens", "counting recomputed tokens"),
    *_attributes(_REQUEST, "RequestStatus", "what can start", "WAITING", "PREEMPTED", "RUNNING"),
    *_attributes(_REQUEST, "Request", "ages", "num_output_tokens", "num_output_placeholders"),
    *_attributes(_REQUEST, "Request", "KV memory", "num_tokens", "num_computed_tokens"),
    *_attributes(_REQUEST, "Request", "what can start", "status", "lora_request"),
    *_attributes(_REQUEST, "Request", "the lifecycle stream", "request_id", "prompt_token_ids"),
    *_attributes(
        _REQUEST, "Request", "the lifecycle stream", "sampling_params", "max_tokens", "arrival_time"
    ),
    *_attributes(_REQUEST, "Request", "the lifecycle stream", "priority", "trace_headers"),
    *_attributes(_REQUEST, "Request", "the lifecycle stream", "num_preemptions", "get_finished_reason"),
)

ALL = PLUGIN + WORKER + SCHEDULER
