"""`trail explain REQUEST`: the life of one request as a timeline with reasons."""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trail.wire.changes import Cause, Change
from trail.wire.names import DEFAULT_DIR, ENV_DIR, socket_path

CALL_TIMEOUT_S = 5.0
EXIT_UNKNOWN = 1
EXIT_USAGE = 2

_PREEMPTED = {
    Cause.KV_FULL: "vLLM took its memory: the KV cache was full",
    Cause.SLOT: "the policy gave its slot to {other}, which comes before it",
    Cause.ROOM: "the policy gave its memory to {other}, which comes before it",
}
_DENIED = {
    Cause.PROTECTED: "{other} is past its cut-off age, so nobody takes its place",
    Cause.LIMIT: "{other} has given way as often as the policy allows",
    Cause.RATIO: "{other} has not enough left to be worth a preemption",
    Cause.MEMORY: "the memory of {other} would not be enough for it",
    Cause.BUSY: "vLLM still needs the blocks of {other}",
    Cause.ADAPTER: "too many LoRA adapters would run at once",
}
_SOURCES = {
    Cause.PROMPT: "from the prompt",
    Cause.PROBE: "by the probe, at prefill",
    Cause.ENGINE: "brought by the engine after a restart of the sidecar",
}
_STATES = {1: "waits", 2: "runs", 3: "has ended"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `trail explain`."""
    parser.description = (
        "Show the life of one request: when it waited, ran and gave way, what was predicted of it, and why."
        " It must be open, or among the last 1,000 that ended."
    )
    parser.epilog = "Exit code 0 for a request that is known, 1 for an unknown one, 2 without a sidecar."
    parser.add_argument("request", metavar="REQUEST", help="vLLM's request id, as the API answers with it, or"
                        " a beginning that fits one request alone")  # fmt: skip
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--dir", type=Path, default=Path(os.environ.get(ENV_DIR, DEFAULT_DIR)), metavar="DIR",
                       help="directory shared with the sidecar (%(default)s)")  # fmt: skip
    where.add_argument("--address", metavar="HOST:PORT", help="the sidecar's --rank-address instead")


def run(args: argparse.Namespace) -> int:
    """Prints the timeline."""
    import grpc

    from trail.wire.v1 import trail_pb2, trail_pb2_grpc

    socket = socket_path(args.dir)
    if not args.address and not socket.exists():
        return _say(
            f"no sidecar: {socket} does not exist; start one (trail serve, trail sidecar), or name its --dir"
            " or --address",
            EXIT_USAGE,
        )
    target = args.address or f"unix:{socket}"
    with grpc.insecure_channel(target) as channel:
        stub = trail_pb2_grpc.ObserveStub(channel)
        try:
            life = stub.Explain(trail_pb2.ExplainRequest(request_id=args.request), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            return _refused(error, target, grpc)
    print("\n".join(timeline(life)))
    return 0


def _refused(error: Any, target: str, grpc: Any) -> int:
    code = error.code()
    if code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
        return _say(error.details(), EXIT_UNKNOWN)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return _say(f"the sidecar at {target} is older and explains nothing; update it", EXIT_USAGE)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return _say(f"no sidecar answers at {target}; is it running?", EXIT_USAGE)
    return _say(f"the sidecar at {target} refused ({code.name}): {error.details()}", EXIT_USAGE)


def _say(line: str, code: int) -> int:
    print(f"trail explain: {line}", file=sys.stderr)
    return code


def timeline(life: Any) -> Iterator[str]:
    """Lines for a terminal, of a `RequestLife`."""
    yield f"{life.request_id}  {_STATES.get(life.state, '')}, engine {life.engine}, policy {life.policy_text}"
    yield from _summary(life)
    yield ""
    yield f"  {'after':>9}  {'tokens':>6}  what happened"
    for moment in life.moments:
        after_s = max(moment.time_s - life.arrival_time_s, 0.0)
        yield f"  {_seconds(after_s):>9}  {moment.age:>6}  {_what(moment, life)}"
    if life.moments_left_out:
        yield f"  {'':>9}  {'':>6}  ({life.moments_left_out} more moments are not kept)"
    if life.moments and life.moments[0].change == Change.FOUND:
        yield "  The sidecar started when this request was open already; what was before is not known."


def _summary(life: Any) -> Iterator[str]:
    at = time.strftime("%H:%M:%S", time.localtime(life.arrival_time_s))
    trace = f", trace {life.trace_id}" if life.trace_id else ""
    yield f"  arrived {at}, prompt of {life.prompt_tokens} tokens, at most {life.max_tokens} wanted{trace}"
    yield "  " + ", ".join(_predictions(life))
    yield "  " + ", ".join(_times(life))
    policy, memory = life.policy_preemptions, life.memory_preemptions
    parts = [f"preempted {policy} times by the policy, {memory} times for want of memory"]
    if not policy + memory:
        parts = ["never preempted"]
    if life.granted:
        parts.append(f"{life.granted} gave way to it")
    if life.denied:
        parts.append("refused another's place: " + ", ".join(Cause(cause).label for cause in life.denied))
    if life.recomputed_tokens:
        parts.append(f"{life.recomputed_tokens} tokens computed again")
    if life.fallback_steps:
        parts.append(f"{life.fallback_steps} engine steps without a live sidecar meanwhile")
    yield "  " + ", ".join(parts)


def _predictions(life: Any) -> Iterator[str]:
    if not life.HasField("initial_prediction"):
        yield "nothing predicted: ranked by the mean of initial predictions"
    else:
        source = _SOURCES.get(life.initial_source, "")
        yield f"predicted {life.initial_prediction:.0f} tokens {source}".rstrip()
    if life.state == 3:
        yield f"{life.age} came ({life.finish_reason})"
        if life.HasField("refined_mae"):
            yield f"refined predictions were off by {life.refined_mae:.1f} tokens on average"
    else:
        yield f"{life.age} came so far"
        if life.HasField("predicted_remaining"):
            yield f"{life.predicted_remaining:.0f} to go by the newest prediction"
    if life.HasField("cutoff_age"):
        yield f"protected from age {life.cutoff_age} on" + (" (it is)" if life.protected else "")


def _times(life: Any) -> Iterator[str]:
    if life.HasField("admission_s"):
        yield f"started after {_seconds(life.admission_s)}"
    else:
        yield (
            f"waiting for {_seconds(max(life.time_s - life.arrival_time_s, 0.0))}"
            if life.state == 1
            else ("its start is not known")
        )
    if life.HasField("first_token_s"):
        yield f"first token after {_seconds(life.first_token_s)}"
    if life.HasField("queued_s"):
        yield f"{_seconds(life.queued_s)} in the queue in all"
    if life.HasField("total_s"):
        yield f"done after {_seconds(life.total_s)}"


def _what(moment: Any, life: Any) -> str:  # noqa: PLR0911 - one a change
    other = moment.other or "another request"
    left = f", {moment.remaining:.0f} to go as predicted" if moment.HasField("remaining") else ""
    match moment.change:
        case Change.ARRIVED:
            return "arrived in the queue"
        case Change.FOUND:
            return "found by a sidecar that had just started"
        case Change.PREDICTED:
            cutoff = f"; protected from age {moment.cutoff_age} on" if moment.HasField("cutoff_age") else ""
            return f"predicted {_SOURCES.get(moment.cause, '')}{left}{cutoff}"
        case Change.ADMITTED:
            return f"started{_rank(moment)}{left}"
        case Change.FIRST_TOKEN:
            return "first token"
        case Change.PREEMPTED:
            return "preempted: " + _PREEMPTED.get(moment.cause, "cause not known").format(other=other) + left
        case Change.RESUMED:
            return f"resumed{_rank(moment)}{left}"
        case Change.PROTECTED:
            return f"protected: past its cut-off age of {moment.cutoff_age}"
        case Change.DENIED:
            return "kept waiting: " + _DENIED.get(moment.cause, "cause not known").format(other=other)
        case Change.ENDED:
            return f"ended ({life.finish_reason})"
    return f"change {moment.change}, which this version does not know"


def _rank(moment: Any) -> str:
    if not moment.HasField("rank"):
        return " in vLLM's own order"
    return " first, as it is protected" if moment.rank == -math.inf else f" at rank {moment.rank:.4g}"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"
