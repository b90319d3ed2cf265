"""The sidecar's gRPC services, for whoever started it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trail.policy.spec import PolicySpec
from trail.wire.names import socket_path
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

_CALL_TIMEOUT_S = 5.0
# A sidecar that starts, or starts again, is found at once.
_RECONNECT_MS = 100
_OPTIONS = [(f"grpc.{which}_reconnect_backoff_ms", _RECONNECT_MS) for which in ("initial", "min", "max")]


class ControlError(Exception):
    """The sidecar did not answer, or refused."""


@dataclass(frozen=True)
class EngineState:
    """What the sidecar knows of the engines, summed over them. Totals count from the engine's start."""

    ready: bool
    """Every engine has said hello, and prompts can be predicted where the predictor has that part."""
    problem: str
    open_requests: int
    running: int
    waiting: int
    preemptions: int
    policy_preemptions: int
    preemptions_denied: int
    recomputed_tokens: int
    fallback_steps: int
    steps: int
    frames_read: int
    frames_lost: int
    frames_rejected: int


class Control:
    """Calls on the unix socket of one shared directory. Every method raises ControlError."""

    def __init__(self, directory: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket_path(directory)}", _OPTIONS)
        self._stub = trail_pb2_grpc.ControlStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def serving(self) -> bool:
        """Whether the sidecar has loaded its predictor and can rank the requests of an engine."""
        status = self._call(self._health.Check, health_pb2.HealthCheckRequest()).status
        return bool(status == health_pb2.HealthCheckResponse.SERVING)

    def set_policy(self, policy: PolicySpec) -> int:
        """Switch the policy; returns its generation."""
        message = trail_pb2.Policy(**vars(policy))
        return int(self._call(self._stub.SetPolicy, message).generation)

    def state(self) -> EngineState:
        """The engines' state as last reported."""
        description = self._call(self._stub.Describe, trail_pb2.DescribeRequest())
        engines = description.engines
        loads = [e.load for e in engines]
        return EngineState(
            ready=description.prompt_predictor in ("ready", "off")
            and all(e.HasField("hello") for e in engines),
            problem="; ".join(e.problem for e in engines if e.problem),
            open_requests=sum(e.open_requests for e in engines),
            running=sum(x.running for x in loads),
            waiting=sum(x.waiting for x in loads),
            preemptions=sum(x.preemptions_total for x in loads),
            policy_preemptions=sum(x.policy_preemptions_total for x in loads),
            preemptions_denied=sum(x.preemptions_denied_total for x in loads),
            recomputed_tokens=sum(x.recomputed_tokens_total for x in loads),
            fallback_steps=sum(x.fallback_steps_total for x in loads),
            steps=sum(x.steps_total for x in loads),
            frames_read=sum(e.frames_read for e in engines),
            frames_lost=sum(e.frames_lost for e in engines),
            frames_rejected=sum(e.frames_rejected for e in engines),
        )

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    @staticmethod
    def _call(method: Any, message: Any) -> Any:
        try:
            return method(message, timeout=_CALL_TIMEOUT_S)
        except grpc.RpcError as e:
            raise ControlError(f"the sidecar's control service: {e.code().name}: {e.details()}") from e
