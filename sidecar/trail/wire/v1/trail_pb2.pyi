from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Change(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANGE_UNSPECIFIED: _ClassVar[Change]
    CHANGE_ARRIVED: _ClassVar[Change]
    CHANGE_FOUND: _ClassVar[Change]
    CHANGE_PREDICTED: _ClassVar[Change]
    CHANGE_ADMITTED: _ClassVar[Change]
    CHANGE_FIRST_TOKEN: _ClassVar[Change]
    CHANGE_PREEMPTED: _ClassVar[Change]
    CHANGE_RESUMED: _ClassVar[Change]
    CHANGE_PROTECTED: _ClassVar[Change]
    CHANGE_DENIED: _ClassVar[Change]
    CHANGE_ENDED: _ClassVar[Change]

class Cause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAUSE_UNSPECIFIED: _ClassVar[Cause]
    CAUSE_KV_FULL: _ClassVar[Cause]
    CAUSE_SLOT: _ClassVar[Cause]
    CAUSE_ROOM: _ClassVar[Cause]
    CAUSE_PROTECTED: _ClassVar[Cause]
    CAUSE_LIMIT: _ClassVar[Cause]
    CAUSE_RATIO: _ClassVar[Cause]
    CAUSE_MEMORY: _ClassVar[Cause]
    CAUSE_BUSY: _ClassVar[Cause]
    CAUSE_ADAPTER: _ClassVar[Cause]
    CAUSE_PROMPT: _ClassVar[Cause]
    CAUSE_PROBE: _ClassVar[Cause]
    CAUSE_ENGINE: _ClassVar[Cause]

class RequestState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REQUEST_STATE_UNSPECIFIED: _ClassVar[RequestState]
    REQUEST_STATE_WAITING: _ClassVar[RequestState]
    REQUEST_STATE_RUNNING: _ClassVar[RequestState]
    REQUEST_STATE_ENDED: _ClassVar[RequestState]
CHANGE_UNSPECIFIED: Change
CHANGE_ARRIVED: Change
CHANGE_FOUND: Change
CHANGE_PREDICTED: Change
CHANGE_ADMITTED: Change
CHANGE_FIRST_TOKEN: Change
CHANGE_PREEMPTED: Change
CHANGE_RESUMED: Change
CHANGE_PROTECTED: Change
CHANGE_DENIED: Change
CHANGE_ENDED: Change
CAUSE_UNSPECIFIED: Cause
CAUSE_KV_FULL: Cause
CAUSE_SLOT: Cause
CAUSE_ROOM: Cause
CAUSE_PROTECTED: Cause
CAUSE_LIMIT: Cause
CAUSE_RATIO: Cause
CAUSE_MEMORY: Cause
CAUSE_BUSY: Cause
CAUSE_ADAPTER: Cause
CAUSE_PROMPT: Cause
CAUSE_PROBE: Cause
CAUSE_ENGINE: Cause
REQUEST_STATE_UNSPECIFIED: RequestState
REQUEST_STATE_WAITING: RequestState
REQUEST_STATE_RUNNING: RequestState
REQUEST_STATE_ENDED: RequestState

class EngineEvents(_message.Message):
    __slots__ = ("hello", "started", "finished", "load", "changed", "monotonic_ns", "wall_ns")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    MONOTONIC_NS_FIELD_NUMBER: _ClassVar[int]
    WALL_NS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    started: _containers.RepeatedCompositeFieldContainer[RequestStarted]
    finished: _containers.RepeatedCompositeFieldContainer[RequestFinished]
    load: Load
    changed: _containers.RepeatedCompositeFieldContainer[RequestChanged]
    monotonic_ns: int
    wall_ns: int
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., started: _Optional[_Iterable[_Union[RequestStarted, _Mapping]]] = ..., finished: _Optional[_Iterable[_Union[RequestFinished, _Mapping]]] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., changed: _Optional[_Iterable[_Union[RequestChanged, _Mapping]]] = ..., monotonic_ns: _Optional[int] = ..., wall_ns: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("key", "request_id", "slot", "prompt_token_ids", "max_tokens", "arrival_time_s", "priority", "trace_headers", "exact_output_tokens", "age", "initial_prediction", "passage")
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
    PASSAGE_FIELD_NUMBER: _ClassVar[int]
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
    passage: Passage
    def __init__(self, key: _Optional[int] = ..., request_id: _Optional[str] = ..., slot: _Optional[int] = ..., prompt_token_ids: _Optional[_Iterable[int]] = ..., max_tokens: _Optional[int] = ..., arrival_time_s: _Optional[float] = ..., priority: _Optional[int] = ..., trace_headers: _Optional[_Mapping[str, str]] = ..., exact_output_tokens: _Optional[int] = ..., age: _Optional[int] = ..., initial_prediction: _Optional[float] = ..., passage: _Optional[_Union[Passage, _Mapping]] = ...) -> None: ...

class RequestFinished(_message.Message):
    __slots__ = ("key", "slot", "output_tokens", "preemptions", "recomputed_tokens", "finish_reason", "passage")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PASSAGE_FIELD_NUMBER: _ClassVar[int]
    key: int
    slot: int
    output_tokens: int
    preemptions: int
    recomputed_tokens: int
    finish_reason: str
    passage: Passage
    def __init__(self, key: _Optional[int] = ..., slot: _Optional[int] = ..., output_tokens: _Optional[int] = ..., preemptions: _Optional[int] = ..., recomputed_tokens: _Optional[int] = ..., finish_reason: _Optional[str] = ..., passage: _Optional[_Union[Passage, _Mapping]] = ...) -> None: ...

class Passage(_message.Message):
    __slots__ = ("queued_ns", "admitted_ns", "first_token_ns", "ended_ns", "waited_ns", "policy_preemptions", "memory_preemptions", "granted", "denied", "fallback_steps", "running")
    QUEUED_NS_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_NS_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_NS_FIELD_NUMBER: _ClassVar[int]
    ENDED_NS_FIELD_NUMBER: _ClassVar[int]
    WAITED_NS_FIELD_NUMBER: _ClassVar[int]
    POLICY_PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    DENIED_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_STEPS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    queued_ns: int
    admitted_ns: int
    first_token_ns: int
    ended_ns: int
    waited_ns: int
    policy_preemptions: int
    memory_preemptions: int
    granted: int
    denied: _containers.RepeatedScalarFieldContainer[Cause]
    fallback_steps: int
    running: bool
    def __init__(self, queued_ns: _Optional[int] = ..., admitted_ns: _Optional[int] = ..., first_token_ns: _Optional[int] = ..., ended_ns: _Optional[int] = ..., waited_ns: _Optional[int] = ..., policy_preemptions: _Optional[int] = ..., memory_preemptions: _Optional[int] = ..., granted: _Optional[int] = ..., denied: _Optional[_Iterable[_Union[Cause, str]]] = ..., fallback_steps: _Optional[int] = ..., running: _Optional[bool] = ...) -> None: ...

class RequestChanged(_message.Message):
    __slots__ = ("key", "change", "time_ns", "age", "cause", "other", "rank")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    key: int
    change: Change
    time_ns: int
    age: int
    cause: Cause
    other: int
    rank: float
    def __init__(self, key: _Optional[int] = ..., change: _Optional[_Union[Change, str]] = ..., time_ns: _Optional[int] = ..., age: _Optional[int] = ..., cause: _Optional[_Union[Cause, str]] = ..., other: _Optional[int] = ..., rank: _Optional[float] = ...) -> None: ...

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
    __slots__ = ("version", "layout_version", "predictor", "model", "hidden_size", "layers", "bins", "policy", "engines", "prompt_predictor", "pacing")
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
    PACING_FIELD_NUMBER: _ClassVar[int]
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
    pacing: str
    def __init__(self, version: _Optional[str] = ..., layout_version: _Optional[int] = ..., predictor: _Optional[str] = ..., model: _Optional[str] = ..., hidden_size: _Optional[int] = ..., layers: _Optional[_Iterable[int]] = ..., bins: _Optional[int] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., engines: _Optional[_Iterable[_Union[EngineStatus, _Mapping]]] = ..., prompt_predictor: _Optional[str] = ..., pacing: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("name", "c", "kv_reserve_tokens", "generation", "kappa", "preempt_ratio", "max_preemptions", "size", "shadow")
    NAME_FIELD_NUMBER: _ClassVar[int]
    C_FIELD_NUMBER: _ClassVar[int]
    KV_RESERVE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    KAPPA_FIELD_NUMBER: _ClassVar[int]
    PREEMPT_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    c: float
    kv_reserve_tokens: float
    generation: int
    kappa: float
    preempt_ratio: float
    max_preemptions: int
    size: str
    shadow: bool
    def __init__(self, name: _Optional[str] = ..., c: _Optional[float] = ..., kv_reserve_tokens: _Optional[float] = ..., generation: _Optional[int] = ..., kappa: _Optional[float] = ..., preempt_ratio: _Optional[float] = ..., max_preemptions: _Optional[int] = ..., size: _Optional[str] = ..., shadow: _Optional[bool] = ...) -> None: ...

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

class WatchRequest(_message.Message):
    __slots__ = ("ends_only",)
    ENDS_ONLY_FIELD_NUMBER: _ClassVar[int]
    ends_only: bool
    def __init__(self, ends_only: _Optional[bool] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("engine", "request_id", "moment", "life", "missed")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MOMENT_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    engine: int
    request_id: str
    moment: Moment
    life: RequestLife
    missed: int
    def __init__(self, engine: _Optional[int] = ..., request_id: _Optional[str] = ..., moment: _Optional[_Union[Moment, _Mapping]] = ..., life: _Optional[_Union[RequestLife, _Mapping]] = ..., missed: _Optional[int] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class Moment(_message.Message):
    __slots__ = ("change", "time_s", "age", "cause", "other", "rank", "remaining", "cutoff_age")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    CUTOFF_AGE_FIELD_NUMBER: _ClassVar[int]
    change: Change
    time_s: float
    age: int
    cause: Cause
    other: str
    rank: float
    remaining: float
    cutoff_age: int
    def __init__(self, change: _Optional[_Union[Change, str]] = ..., time_s: _Optional[float] = ..., age: _Optional[int] = ..., cause: _Optional[_Union[Cause, str]] = ..., other: _Optional[str] = ..., rank: _Optional[float] = ..., remaining: _Optional[float] = ..., cutoff_age: _Optional[int] = ...) -> None: ...

class RequestLife(_message.Message):
    __slots__ = ("engine", "request_id", "state", "arrival_time_s", "time_s", "prompt_tokens", "max_tokens", "priority", "trace_id", "initial_prediction", "initial_source", "predicted_remaining", "refined_mae", "cutoff_age", "protected", "age", "finish_reason", "queued_s", "admission_s", "first_token_s", "total_s", "policy_preemptions", "memory_preemptions", "granted", "denied", "recomputed_tokens", "fallback_steps", "policy", "policy_text", "moments", "moments_left_out", "admission_rank")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_TIME_S_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    INITIAL_PREDICTION_FIELD_NUMBER: _ClassVar[int]
    INITIAL_SOURCE_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_REMAINING_FIELD_NUMBER: _ClassVar[int]
    REFINED_MAE_FIELD_NUMBER: _ClassVar[int]
    CUTOFF_AGE_FIELD_NUMBER: _ClassVar[int]
    PROTECTED_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    QUEUED_S_FIELD_NUMBER: _ClassVar[int]
    ADMISSION_S_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_S_FIELD_NUMBER: _ClassVar[int]
    TOTAL_S_FIELD_NUMBER: _ClassVar[int]
    POLICY_PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    DENIED_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_STEPS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_TEXT_FIELD_NUMBER: _ClassVar[int]
    MOMENTS_FIELD_NUMBER: _ClassVar[int]
    MOMENTS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    ADMISSION_RANK_FIELD_NUMBER: _ClassVar[int]
    engine: int
    request_id: str
    state: RequestState
    arrival_time_s: float
    time_s: float
    prompt_tokens: int
    max_tokens: int
    priority: int
    trace_id: str
    initial_prediction: float
    initial_source: Cause
    predicted_remaining: float
    refined_mae: float
    cutoff_age: int
    protected: bool
    age: int
    finish_reason: str
    queued_s: float
    admission_s: float
    first_token_s: float
    total_s: float
    policy_preemptions: int
    memory_preemptions: int
    granted: int
    denied: _containers.RepeatedScalarFieldContainer[Cause]
    recomputed_tokens: int
    fallback_steps: int
    policy: Policy
    policy_text: str
    moments: _containers.RepeatedCompositeFieldContainer[Moment]
    moments_left_out: int
    admission_rank: float
    def __init__(self, engine: _Optional[int] = ..., request_id: _Optional[str] = ..., state: _Optional[_Union[RequestState, str]] = ..., arrival_time_s: _Optional[float] = ..., time_s: _Optional[float] = ..., prompt_tokens: _Optional[int] = ..., max_tokens: _Optional[int] = ..., priority: _Optional[int] = ..., trace_id: _Optional[str] = ..., initial_prediction: _Optional[float] = ..., initial_source: _Optional[_Union[Cause, str]] = ..., predicted_remaining: _Optional[float] = ..., refined_mae: _Optional[float] = ..., cutoff_age: _Optional[int] = ..., protected: _Optional[bool] = ..., age: _Optional[int] = ..., finish_reason: _Optional[str] = ..., queued_s: _Optional[float] = ..., admission_s: _Optional[float] = ..., first_token_s: _Optional[float] = ..., total_s: _Optional[float] = ..., policy_preemptions: _Optional[int] = ..., memory_preemptions: _Optional[int] = ..., granted: _Optional[int] = ..., denied: _Optional[_Iterable[_Union[Cause, str]]] = ..., recomputed_tokens: _Optional[int] = ..., fallback_steps: _Optional[int] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., policy_text: _Optional[str] = ..., moments: _Optional[_Iterable[_Union[Moment, _Mapping]]] = ..., moments_left_out: _Optional[int] = ..., admission_rank: _Optional[float] = ...) -> None: ...

class BacklogRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BacklogResponse(_message.Message):
    __slots__ = ("engines",)
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    engines: _containers.RepeatedCompositeFieldContainer[EngineBacklog]
    def __init__(self, engines: _Optional[_Iterable[_Union[EngineBacklog, _Mapping]]] = ...) -> None: ...

class EngineBacklog(_message.Message):
    __slots__ = ("engine", "model", "waiting_requests", "running_requests", "waiting_tokens", "running_tokens", "tokens_per_s", "wait_s", "kv_usage", "ordering")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WAITING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    KV_USAGE_FIELD_NUMBER: _ClassVar[int]
    ORDERING_FIELD_NUMBER: _ClassVar[int]
    engine: int
    model: str
    waiting_requests: int
    running_requests: int
    waiting_tokens: float
    running_tokens: float
    tokens_per_s: float
    wait_s: float
    kv_usage: float
    ordering: bool
    def __init__(self, engine: _Optional[int] = ..., model: _Optional[str] = ..., waiting_requests: _Optional[int] = ..., running_requests: _Optional[int] = ..., waiting_tokens: _Optional[float] = ..., running_tokens: _Optional[float] = ..., tokens_per_s: _Optional[float] = ..., wait_s: _Optional[float] = ..., kv_usage: _Optional[float] = ..., ordering: _Optional[bool] = ...) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: int
    def __init__(self, requests: _Optional[int] = ...) -> None: ...

class SnapshotResponse(_message.Message):
    __slots__ = ("time_s", "description", "policy_text", "pod", "engines", "policy_reason")
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    POLICY_TEXT_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    POLICY_REASON_FIELD_NUMBER: _ClassVar[int]
    time_s: float
    description: Description
    policy_text: str
    pod: str
    engines: _containers.RepeatedCompositeFieldContainer[EngineSnapshot]
    policy_reason: str
    def __init__(self, time_s: _Optional[float] = ..., description: _Optional[_Union[Description, _Mapping]] = ..., policy_text: _Optional[str] = ..., pod: _Optional[str] = ..., engines: _Optional[_Iterable[_Union[EngineSnapshot, _Mapping]]] = ..., policy_reason: _Optional[str] = ...) -> None: ...

class EngineSnapshot(_message.Message):
    __slots__ = ("engine", "backlog", "waiting", "running", "ended", "ended_total", "policy_preemptions_total", "memory_preemptions_total", "denied_total", "protected_running")
    class DeniedTotalEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ENDED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    POLICY_PREEMPTIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PREEMPTIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DENIED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PROTECTED_RUNNING_FIELD_NUMBER: _ClassVar[int]
    engine: int
    backlog: EngineBacklog
    waiting: _containers.RepeatedCompositeFieldContainer[RequestLife]
    running: _containers.RepeatedCompositeFieldContainer[RequestLife]
    ended: _containers.RepeatedCompositeFieldContainer[RequestLife]
    ended_total: int
    policy_preemptions_total: int
    memory_preemptions_total: int
    denied_total: _containers.ScalarMap[str, int]
    protected_running: int
    def __init__(self, engine: _Optional[int] = ..., backlog: _Optional[_Union[EngineBacklog, _Mapping]] = ..., waiting: _Optional[_Iterable[_Union[RequestLife, _Mapping]]] = ..., running: _Optional[_Iterable[_Union[RequestLife, _Mapping]]] = ..., ended: _Optional[_Iterable[_Union[RequestLife, _Mapping]]] = ..., ended_total: _Optional[int] = ..., policy_preemptions_total: _Optional[int] = ..., memory_preemptions_total: _Optional[int] = ..., denied_total: _Optional[_Mapping[str, int]] = ..., protected_running: _Optional[int] = ...) -> None: ...
