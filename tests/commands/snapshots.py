"""Snapshots as sidecars answer with, made by hand: tests say what matters to them."""

from typing import Any

from trail.wire.v1 import trail_pb2


def life(request_id: str, **more: Any) -> Any:
    """A `RequestLife`."""
    return trail_pb2.RequestLife(**{"request_id": request_id, "prompt_tokens": 40, **more})


def running(place: int, age: int, left: float, **more: Any) -> Any:
    return life(
        f"cmpl-wave-{place}-0-0000abcd", state=2, age=age, predicted_remaining=left,
        initial_prediction=age + left + 5, cutoff_age=30, queued_s=0.25, time_s=100.0, arrival_time_s=98.0,
        **more,
    )  # fmt: skip


def waiting(place: int, **more: Any) -> Any:
    return life(
        f"cmpl-wave-{place}-0-0000abcd", state=1, predicted_remaining=20.0 + place, initial_prediction=25.0,
        time_s=100.0, arrival_time_s=98.5, **more,
    )  # fmt: skip


def ended(place: int, length: int, initial: float, refined: float, reason: str = "stop") -> Any:
    return life(
        f"cmpl-done-{place}-0-0000abcd", state=3, age=length, initial_prediction=initial, refined_mae=refined,
        finish_reason=reason,
    )  # fmt: skip


def snapshot(
    *, runs: int = 16, waits: int = 40, engines: int = 1, pod: str = "demo-0", text: str = "trail-c0.2",
    shadow: bool = False, problem: str = "", reason: str = "as stated at the start",
    pacing: str = "shared-cores",
) -> Any:  # fmt: skip
    """A `SnapshotResponse` of a busy sidecar."""
    made = trail_pb2.SnapshotResponse(
        time_s=1_000_000.0, pod=pod, policy_text=text, policy_reason=reason,
        description=trail_pb2.Description(
            policy=trail_pb2.Policy(name="trail", c=0.2, generation=3, shadow=shadow), pacing=pacing,
        ),
    )  # fmt: skip
    for engine in range(engines):
        made.description.engines.append(
            trail_pb2.EngineStatus(hello=trail_pb2.Hello(engine=engine, max_running=16), problem=problem)
        )
        made.engines.append(
            trail_pb2.EngineSnapshot(
                engine=engine,
                backlog=trail_pb2.EngineBacklog(
                    waiting_requests=waits,
                    running_requests=runs,
                    kv_usage=0.87,
                    tokens_per_s=5123.0,
                    wait_s=3.2,
                    ordering=not problem,
                ),
                running=[running(i, 10 * i, 100.0 - i, protected=i % 3 == 0) for i in range(runs)],
                waiting=[waiting(i, denied=[4, 6] if i == 0 else []) for i in range(waits)],
                ended=[ended(0, 100, 120.0, 8.0), ended(1, 50, 40.0, 4.0), ended(2, 5, 99.0, 9.0, "abort")],
                policy_preemptions_total=812,
                memory_preemptions_total=3,
                denied_total={"protected": 5, "ratio": 7},
            )
        )
    return made
