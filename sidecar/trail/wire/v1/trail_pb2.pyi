from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EngineEvents(_message.Message):
    __slots__ = ("hello", "started", "finished", "load")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    started: _containers.RepeatedCompositeFieldContainer[RequestStarted]
    finished: _containers.RepeatedCompositeFieldContainer[RequestFinished]
    load: Load
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., started: _Optional[_Iterable[_Union[RequestStarted, _Mapping]]] = ..., finished: _Optional[_Iterable[_Union[RequestFinished, _Mapping]]] = ..., load: _Optional[_Union[Load, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("engine", "vllm_version", "model", "hidden_size", "layers", "dtype", "block_size_tokens", "kv_blocks", "max_running", "max_model_len", "prefix_caching")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    VLLM_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KV_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_CACHING_FIELD_NUMBER: _ClassVar[int]
    engine: int
    vllm_version: str
    model: str
    hidden_size: int
    layers: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    block_size_tokens: int
    kv_blocks: int
    max_running: int
    max_model_len: int
    prefix_caching: bool
    def __init__(self, engine: _Optional[int] = ..., vllm_version: _Optional[str] = ..., model: _Optional[str] = ..., hidden_size: _Optional[int] = ..., layers: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., block_size_tokens: _Optional[int] = ..., kv_blocks: _Optional[int] = ..., max_running: _Optional[int] = ..., max_model_len: _Optional[int] = ..., prefix_caching: _Optional[bool] = ...) -> None: ...

class RequestStarted(_message.Message):
    __slots__ = ("key", "request_id", "slot", "prompt_token_ids", "max_tokens", "arrival_time_s", "priority", "trace_headers", "exact_output_tokens", "age", "initial_prediction")
    class TraceHeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_TIME_S_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TRACE_HEADERS_FIELD_NUMBER: _ClassVar[int]
    EXACT_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    INITIAL_PREDICTION_FIELD_NUMBER: _ClassVar[int]
    key: int
    request_id: str
    slot: int
    prompt_token_ids: _containers.RepeatedScalarFieldContainer[int]
    max_tokens: int
    arrival_time_s: float
    priority: int
    trace_headers: _containers.ScalarMap[str, str]
    exact_output_tokens: int
    age: int
    initial_prediction: float
    def __init__(self, key: _Optional[int] = ..., request_id: _Optional[str] = ..., slot: _Optional[int] = ..., prompt_token_ids: _Optional[_Iterable[int]] = ..., max_tokens: _Optional[int] = ..., arrival_time_s: _Optional[float] = ..., priority: _Optional[int] = ..., trace_headers: _Optional[_Mapping[str, str]] = ..., exact_output_tokens: _Optional[int] = ..., age: _Optional[int] = ..., initial_prediction: _Optional[float] = ...) -> None: ...

class RequestFinished(_message.Message):
    __slots__ = ("key", "slot", "output_tokens", "preemptions", "recomputed_tokens", "finish_reason")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    key: int
    slot: int
    output_tokens: int
    preemptions: int
    recomputed_tokens: int
    finish_reason: str
    def __init__(self, key: _Optional[int] = ..., slot: _Optional[int] = ..., output_tokens: _Optional[int] = ..., preemptions: _Optional[int] = ..., recomputed_tokens: _Optional[int] = ..., finish_reason: _Optional[str] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("waiting", "running", "kv_usage", "preemptions_total", "policy_preemptions_total", "recomputed_tokens_total", "fallback_steps_total", "steps_total", "preemptions_denied_total")
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    KV_USAGE_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    POLICY_PREEMPTIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTED_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_DENIED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    waiting: int
    running: int
    kv_usage: float
    preemptions_total: int
    policy_preemptions_total: int
    recomputed_tokens_total: int
    fallback_steps_total: int
    steps_total: int
    preemptions_denied_total: int
    def __init__(self, waiting: _Optional[int] = ..., running: _Optional[int] = ..., kv_usage: _Optional[float] = ..., preemptions_total: _Optional[int] = ..., policy_preemptions_total: _Optional[int] = ..., recomputed_tokens_total: _Optional[int] = ..., fallback_steps_total: _Optional[int] = ..., steps_total: _Optional[int] = ..., preemptions_denied_total: _Optional[int] = ...) -> None: ...

class ReportEnd(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Description(_message.Message):
    __slots__ = ("version", "layout_version", "predictor", "model", "hidden_size", "layers", "bins", "policy", "engines", "prompt_predictor")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    BINS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    version: str
    layout_version: int
    predictor: str
    model: str
    hidden_size: int
    layers: _containers.RepeatedScalarFieldContainer[int]
    bins: int
    policy: Policy
    engines: _containers.RepeatedCompositeFieldContainer[EngineStatus]
    prompt_predictor: str
    def __init__(self, version: _Optional[str] = ..., layout_version: _Optional[int] = ..., predictor: _Optional[str] = ..., model: _Optional[str] = ..., hidden_size: _Optional[int] = ..., layers: _Optional[_Iterable[int]] = ..., bins: _Optional[int] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., engines: _Optional[_Iterable[_Union[EngineStatus, _Mapping]]] = ..., prompt_predictor: _Optional[str] = ...) -> None: ...

class EngineStatus(_message.Message):
    __slots__ = ("hello", "load", "open_requests", "frames_read", "frames_lost", "frames_rejected", "problem")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    OPEN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_READ_FIELD_NUMBER: _ClassVar[int]
    FRAMES_LOST_FIELD_NUMBER: _ClassVar[int]
    FRAMES_REJECTED_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    load: Load
    open_requests: int
    frames_read: int
    frames_lost: int
    frames_rejected: int
    problem: str
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., open_requests: _Optional[int] = ..., frames_read: _Optional[int] = ..., frames_lost: _Optional[int] = ..., frames_rejected: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Policy(_message.Message):
    __slots__ = ("name", "c", "kv_reserve_tokens", "generation", "kappa", "preempt_ratio", "max_preemptions", "size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    C_FIELD_NUMBER: _ClassVar[int]
    KV_RESERVE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    KAPPA_FIELD_NUMBER: _ClassVar[int]
    PREEMPT_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    c: float
    kv_reserve_tokens: float
    generation: int
    kappa: float
    preempt_ratio: float
    max_preemptions: int
    size: str
    def __init__(self, name: _Optional[str] = ..., c: _Optional[float] = ..., kv_reserve_tokens: _Optional[float] = ..., generation: _Optional[int] = ..., kappa: _Optional[float] = ..., preempt_ratio: _Optional[float] = ..., max_preemptions: _Optional[int] = ..., size: _Optional[str] = ...) -> None: ...

class RankRequest(_message.Message):
    __slots__ = ("candidates", "policy", "wait_s", "token_s")
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    TOKEN_S_FIELD_NUMBER: _ClassVar[int]
    candidates: _containers.RepeatedCompositeFieldContainer[RankCandidate]
    policy: Policy
    wait_s: float
    token_s: float
    def __init__(self, candidates: _Optional[_Iterable[_Union[RankCandidate, _Mapping]]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., wait_s: _Optional[float] = ..., token_s: _Optional[float] = ...) -> None: ...

class RankCandidate(_message.Message):
    __slots__ = ("id", "arrival_time_s", "age", "admitted", "initial_prediction", "predicted_remaining", "exact_output_tokens", "priority", "deadline_s", "prompt_tokens", "preemptions")
    ID_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_TIME_S_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    INITIAL_PREDICTION_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_REMAINING_FIELD_NUMBER: _ClassVar[int]
    EXACT_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    id: str
    arrival_time_s: float
    age: int
    admitted: bool
    initial_prediction: float
    predicted_remaining: float
    exact_output_tokens: int
    priority: int
    deadline_s: float
    prompt_tokens: int
    preemptions: int
    def __init__(self, id: _Optional[str] = ..., arrival_time_s: _Optional[float] = ..., age: _Optional[int] = ..., admitted: _Optional[bool] = ..., initial_prediction: _Optional[float] = ..., predicted_remaining: _Optional[float] = ..., exact_output_tokens: _Optional[int] = ..., priority: _Optional[int] = ..., deadline_s: _Optional[float] = ..., prompt_tokens: _Optional[int] = ..., preemptions: _Optional[int] = ...) -> None: ...

class RankResponse(_message.Message):
    __slots__ = ("ranked",)
    RANKED_FIELD_NUMBER: _ClassVar[int]
    ranked: _containers.RepeatedCompositeFieldContainer[Ranked]
    def __init__(self, ranked: _Optional[_Iterable[_Union[Ranked, _Mapping]]] = ...) -> None: ...

class Ranked(_message.Message):
    __slots__ = ("id", "rank", "cutoff_age", "preemptible")
    ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    CUTOFF_AGE_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIBLE_FIELD_NUMBER: _ClassVar[int]
    id: str
    rank: float
    cutoff_age: int
    preemptible: bool
    def __init__(self, id: _Optional[str] = ..., rank: _Optional[float] = ..., cutoff_age: _Optional[int] = ..., preemptible: _Optional[bool] = ...) -> None: ...
