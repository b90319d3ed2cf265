"""The one place that knows the spelling of files, environment variables and metadata keys."""

from pathlib import Path

ENV_ENABLED = "TRAIL_ENABLED"
"""`1` switches TRAIL on inside vLLM; anything else leaves vLLM as it is."""
ENV_DIR = "TRAIL_DIR"
"""The directory shared by engine and sidecar (memory-backed)."""
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
ENV_METRICS_PORT = "TRAIL_METRICS_PORT"
"""Port of the metrics endpoint; 0: the system chooses; negative: no endpoint."""
ENV_PACING = "TRAIL_PACING"
"""How often the sidecar does things: `auto`, or the name of a profile (`trail.sidecar.pacing`)."""
ENV_READY_FD = "TRAIL_READY_FD"
"""File descriptor that the sidecar writes a byte to once everything is loaded; its supervisor sets it."""

DEFAULT_DIR = Path("/dev/shm/trail")  # noqa: S108 - shared memory is meant
DEFAULT_HEARTBEAT_MS = 100.0

XARG_OUTPUT_TOKENS = "trail_output_tokens"
"""Key in `SamplingParams.extra_args` (OpenAI API: `vllm_xargs`) with the exact output length (oracle)."""
XARG_DEADLINE = "trail_deadline_s"
"""Key in the same place with the seconds from a request's arrival in which its answer should be complete
(adaptive)."""


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
