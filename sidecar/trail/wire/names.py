"""The one place that knows the spelling of files, environment variables and metadata keys."""

from pathlib import Path

# vLLM's processes read these; the sidecar and its supervisor the first one as well.
ENV_DIR = "TRAIL_DIR"
"""The directory shared by engine and sidecar (memory-backed)."""
ENV_ENABLED = "TRAIL_ENABLED"
"""`1` switches TRAIL on inside vLLM; anything else leaves vLLM as it is."""
ENV_LAYERS = "TRAIL_LAYERS"
"""Layers to export, comma-separated; k is Hugging Face `hidden_states[k]`. Serving uses one."""
ENV_EXPORT_EVERY = "TRAIL_EXPORT_EVERY"
"""Export every K-th step of a request (1 by default); the prompt's vector is always exported."""
ENV_HEARTBEAT_MS = "TRAIL_HEARTBEAT_MS"
"""Silence of the sidecar, in milliseconds, after which the engine serves first come, first served."""
ENV_OTLP_ENDPOINT = "TRAIL_OTLP_ENDPOINT"
"""OTLP receiver (gRPC) of traces, as in `http://localhost:4317`; empty: none. Engine and sidecar read it:
vLLM passes trace headers on only where its own tracing is on."""
ENV_TRACE_RATIO = "TRAIL_TRACE_RATIO"
"""Share, 0 to 1, of the requests to trace whose client says nothing about it. Engine and sidecar read it."""
ENV_STATS = "TRAIL_STATS"
"""`1` makes worker and scheduler write their timing histograms into the shared directory."""

# The sidecar reads these.
ENV_PREDICTOR = "TRAIL_PREDICTOR"
"""Directory of the predictor artefact."""
ENV_POLICY = "TRAIL_POLICY"
"""Policy at start, as in `trail-c0.8`."""
ENV_KV_RESERVE = "TRAIL_KV_RESERVE_TOKENS"
"""KV tokens kept free per running request when admitting; negative: no limit of ours."""
ENV_ENGINES = "TRAIL_ENGINES"
"""Number of engine cores (data-parallel size); one ring and one board each."""
ENV_METRICS_HOST = "TRAIL_METRICS_HOST"
"""Address of the metrics endpoint."""
ENV_METRICS_PORT = "TRAIL_METRICS_PORT"
"""Port of the metrics endpoint; 0: the system chooses; negative: no endpoint."""
ENV_RANK_ADDRESS = "TRAIL_RANK_ADDRESS"
"""`host:port` of the read-only TCP server (Ranking, Observe, health); empty: none."""
ENV_QUALITY = "TRAIL_QUALITY"
"""Whether anything follows from the judging of predictions: `act` or `watch`."""
ENV_THREADS = "TRAIL_THREADS"
"""Threads of one prediction batch."""
ENV_REDIS_URL = "TRAIL_REDIS_URL"
"""Redis of the operator's loop on c; empty: c stays as it is stated."""
ENV_WORKLOAD = "TRAIL_WORKLOAD"
"""`namespace/kind/name` of what this pod belongs to, in Redis."""
ENV_POD = "TRAIL_POD_NAME"
"""Name of this pod in Redis, metrics and traces."""
ENV_POD_NAMESPACE = "TRAIL_POD_NAMESPACE"
"""Namespace of this pod in metrics and traces."""
ENV_POD_UID = "TRAIL_POD_UID"
"""UID of this pod: injected for whoever looks into the container, read by no program."""
ENV_DECISION_LOG = "TRAIL_DECISION_LOG"
"""File of the decision log (`sidecar.history.decision_log`); empty: none."""
ENV_DECISION_LOG_MIB = "TRAIL_DECISION_LOG_MIB"
"""What the decision log may take of the disk, all its parts together."""
ENV_TRACE_KEEP_PREEMPTED = "TRAIL_TRACE_KEEP_PREEMPTED"
"""`1` traces every preempted request, whatever the sampling."""
ENV_TRACE_KEEP_WAITED = "TRAIL_TRACE_KEEP_WAITED_S"
"""Traces every request that waited so many seconds in the queue, whatever the sampling."""
ENV_PACING = "TRAIL_PACING"
"""How often the sidecar does things: `auto`, or the name of a profile (`trail.sidecar.pacing`)."""
ENV_READY_FD = "TRAIL_READY_FD"
"""File descriptor that the sidecar writes a byte to once everything is loaded; its supervisor sets it."""

OPERATOR_PREFIX = "TRAIL_OPERATOR_"
"""Before the name of each option of `trail-operator`, as in TRAIL_OPERATOR_LEASE for --lease."""

ENV_VLLM_PLUGINS = "VLLM_PLUGINS"
"""vLLM's own: the plugins it loads, comma-separated; unset: all."""
PLUGIN = "trail"
"""Our entry point among vLLM's plugins."""

DEFAULT_DIR = Path("/dev/shm/trail")  # noqa: S108 - shared memory is meant
DEFAULT_HEARTBEAT_MS = 100.0
DEFAULT_METRICS_PORT = 9464

XARG_OUTPUT_TOKENS = "trail_output_tokens"
"""Key in `SamplingParams.extra_args` (OpenAI API: `vllm_xargs`) with the exact output length (oracle)."""
XARG_DEADLINE = "trail_deadline_s"
"""Key in the same place with the seconds from a request's arrival in which its answer should be complete
(adaptive)."""


def with_plugin(allowed: str) -> str:
    """A value of `VLLM_PLUGINS` with our entry point in it, at the end where it was not."""
    plugins = [plugin for plugin in allowed.split(",") if plugin]
    return ",".join([*plugins, *([] if PLUGIN in plugins else [PLUGIN])])


def ring_path(directory: Path, engine: int) -> Path:
    """Frame ring of engine core `engine` (its data-parallel rank)."""
    return directory / f"frames-{engine}.ring"


BOARDS = "board-*.board"
"""Pattern of all boards in the directory."""


def board_path(directory: Path, engine: int) -> Path:
    """Board of engine core `engine` (its data-parallel rank)."""
    return directory / f"board-{engine}.board"


def socket_path(directory: Path) -> Path:
    """Unix socket of the sidecar's gRPC server."""
    return directory / "sidecar.sock"
