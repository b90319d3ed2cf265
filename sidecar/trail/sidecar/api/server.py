"""The gRPC side: lifecycle and control on the unix socket; what only reads, there and on TCP."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from trail import __version__
from trail.policy.spec import PolicySpec
from trail.sidecar.api.messages import policy_message
from trail.sidecar.api.observe import ObserveService
from trail.sidecar.api.ranking import Candidate, InvalidCandidate, rank_candidates
from trail.sidecar.loop.loop import Delivery, Inbox
from trail.sidecar.loop.pipeline import EnginePipeline
from trail.sidecar.loop.policy_box import PolicyBox
from trail.sidecar.pacing import Pacing
from trail.wire.frames import LAYOUT_VERSION
from trail.wire.lifecycle import StreamEnded, from_message, hello_message, load_message
from trail.wire.names import ENV_ENGINES
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

# After a reconnect an engine may report thousands of open prompts in one message.
_MESSAGE_LIMIT_BYTES = 256 << 20
_UNARY_THREADS = 4

RANKING = "trail.v1.Ranking"
_OPTIONAL = ("kappa", "preempt_ratio", "max_preemptions", "size")
"""Parameters of a policy that a message may leave to the policy's default."""


@dataclass(frozen=True)
class PredictorInfo:
    """The predictor as `Describe` states it."""

    path: str
    model_id: str
    hidden_size: int
    layer: int | None
    bins: int


class LifecycleService(trail_pb2_grpc.LifecycleServicer):  # type: ignore[misc]  # generated code is untyped
    """Passes what engines report on to the loop."""

    def __init__(self, engines: int, inbox: Inbox, pacing: Pacing) -> None:
        self._engines = engines
        self._inbox = inbox
        self._look_s = pacing.caller_look_s
        self._sessions = itertools.count(1)

    def Report(self, request_iterator: Iterator[Any], context: Any) -> Any:  # noqa: N802 - gRPC's name
        """One engine's stream, from hello to its end."""
        session = next(self._sessions)
        engine: int | None = None
        try:
            for message in request_iterator:
                if message.HasField("hello"):
                    engine = self._known(message.hello.engine, context)
                if engine is None:
                    context.abort(
                        grpc.StatusCode.INVALID_ARGUMENT, "the first message of a stream must carry hello"
                    )
                else:
                    self._pass_on(Delivery(engine, session, tuple(from_message(message))), context)
        finally:
            if engine is not None:
                self._inbox.put(Delivery(engine, session, (StreamEnded(),)), self._look_s)
        return trail_pb2.ReportEnd()

    def _known(self, engine: int, context: Any) -> int:
        if engine >= self._engines:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"hello.engine is {engine}, the sidecar serves engines 0 to {self._engines - 1};"
                f" set {ENV_ENGINES} to vLLM's data-parallel size",
            )
        return engine

    def _pass_on(self, delivery: Delivery, context: Any) -> None:
        while not self._inbox.put(delivery, self._look_s):
            if not context.is_active():
                return


class ControlService(trail_pb2_grpc.ControlServicer):  # type: ignore[misc]  # generated code is untyped
    """Describes the sidecar and sets its policy."""

    def __init__(
        self,
        pipelines: Mapping[int, EnginePipeline],
        policy: PolicyBox,
        predictor: PredictorInfo | None,
        prompt_state: Callable[[], str],
        pacing: Pacing,
    ) -> None:
        self._pipelines = pipelines
        self._policy = policy
        self._predictor = predictor
        self._prompt_state = prompt_state
        self._pacing = pacing

    def Describe(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - gRPC's name
        """What runs here and how its engines do."""
        return self.description()

    def description(self) -> Any:
        """What runs here and how its engines do."""
        description = trail_pb2.Description(
            version=__version__,
            layout_version=LAYOUT_VERSION,
            policy=policy_message(*self._policy.current),
            engines=[_status(pipeline) for pipeline in self._pipelines.values()],
            prompt_predictor=self._prompt_state(),
            pacing=self._pacing.name,
        )
        if self._predictor is not None:
            description.predictor = self._predictor.path
            description.model = self._predictor.model_id
            description.hidden_size = self._predictor.hidden_size
            if self._predictor.layer is not None:
                description.layers.append(self._predictor.layer)
            description.bins = self._predictor.bins
        return description

    def GetPolicy(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - gRPC's name
        """The policy in force."""
        return policy_message(*self._policy.current)

    def SetPolicy(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Puts a policy in force; the loop ranks every open request by it in its next round."""
        spec = _spec(request, "policy", context)
        if self._predictor is None and spec.name not in ("fcfs", "oracle"):
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"policy {spec.name} needs a predictor and this sidecar has none; start it with --predictor",
            )
        return policy_message(*self._policy.set(spec, "set by a caller of SetPolicy"))


class RankingService(trail_pb2_grpc.RankingServicer):  # type: ignore[misc]  # generated code is untyped
    """Ranks requests of callers that share no memory."""

    def __init__(
        self,
        policy: PolicyBox,
        mean_initial: Callable[[], float],
        queue_estimate: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0),
    ) -> None:
        """`queue_estimate` gives, in seconds, how long the queue is and how long a step."""
        self._policy = policy
        self._mean_initial = mean_initial
        self._queue_estimate = queue_estimate

    def Rank(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """The candidates in the order they are to be served."""
        spec = (
            _spec(request.policy, "policy", context)
            if request.HasField("policy")
            else self._policy.current[0]
        )
        candidates = [
            Candidate(**{name: getattr(item, name) for name in Candidate.__dataclass_fields__})
            for item in request.candidates
        ]
        wait_s, token_s = self._queue_estimate()
        wait_s = request.wait_s if request.HasField("wait_s") else wait_s
        token_s = request.token_s if request.HasField("token_s") else token_s
        try:
            ranked = rank_candidates(spec, candidates, self._mean_initial(), wait_s, token_s)
        except InvalidCandidate as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return trail_pb2.RankResponse(
            ranked=[
                trail_pb2.Ranked(
                    id=item.id, rank=item.rank, cutoff_age=item.cutoff_age, preemptible=item.preemptible
                )
                for item in ranked
            ]
        )


class Health:
    """Standard health: overall and per service. Ranking needs no predictor and is always served."""

    def __init__(self) -> None:
        self.servicer = health.HealthServicer()
        self._serving: bool | None = None
        self.servicer.set(RANKING, health_pb2.HealthCheckResponse.SERVING)
        self.set(serving=False)

    def set(self, *, serving: bool) -> None:
        """States whether predictions are made and published."""
        if serving == self._serving:
            return
        self._serving = serving
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for service in ("", "trail.v1.Lifecycle", "trail.v1.Control"):
            self.servicer.set(service, status)

    def shut_down(self) -> None:
        """Tells every watcher that this is the end."""
        self.servicer.enter_graceful_shutdown()


def make_server(address: str, services: Iterable[Callable[[Any], None]], streams: int) -> Any:
    """A started-to-be server on `address` with room for `streams` lasting streams beside short calls.

    Raises RuntimeError when the address cannot be bound.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(streams + _UNARY_THREADS, thread_name_prefix="trail-grpc"),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MESSAGE_LIMIT_BYTES)],
    )
    for add in services:
        add(server)
    server.add_insecure_port(address)
    return server


def adder(add: Callable[[Any, Any], None], servicer: Any) -> Callable[[Any], None]:
    """Registers `servicer` through the generated function `add`."""
    return lambda server: add(servicer, server)


def unix_services(
    lifecycle: LifecycleService,
    control: ControlService,
    ranking: RankingService,
    observe: ObserveService,
    checks: Health,
) -> list[Callable[[Any], None]]:
    """What is offered on the unix socket."""
    return [
        adder(trail_pb2_grpc.add_LifecycleServicer_to_server, lifecycle),
        adder(trail_pb2_grpc.add_ControlServicer_to_server, control),
        *read_only_services(ranking, observe, checks),
    ]


def read_only_services(
    ranking: RankingService, observe: ObserveService, checks: Health
) -> list[Callable[[Any], None]]:
    """What is offered on TCP: nothing that changes anything."""
    return [
        adder(trail_pb2_grpc.add_ObserveServicer_to_server, observe),
        adder(trail_pb2_grpc.add_RankingServicer_to_server, ranking),
        adder(health_pb2_grpc.add_HealthServicer_to_server, checks.servicer),
    ]


def _spec(message: Any, field: str, context: Any) -> PolicySpec:
    try:
        stated = {name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)}
        return PolicySpec(
            name=message.name,
            c=message.c,
            kv_reserve_tokens=message.kv_reserve_tokens,
            shadow=message.shadow,
            **stated,
        )
    except ValueError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {error}")
        raise AssertionError from error  # abort raises; this line is for the type checker


def _status(pipeline: EnginePipeline) -> Any:
    frames = pipeline.frames
    status = trail_pb2.EngineStatus(
        load=load_message(pipeline.load),
        open_requests=len(pipeline.tracker),
        frames_read=frames.read,
        frames_lost=frames.lost,
        frames_rejected=frames.torn + sum(frames.rejected.copy().values()),
        problem=pipeline.problem or "",
    )
    if pipeline.hello is not None:
        status.hello.CopyFrom(hello_message(pipeline.hello))
    return status
