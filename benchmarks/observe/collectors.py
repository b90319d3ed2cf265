"""`python -m benchmarks.observe.collectors`: what a bad collector does to the delay from a token to its rank.

The sidecar's process, with the demo model's predictor, serves a pretended engine (`pretend`) while its
collector is well, away, slow, or refuses; and once without traces. Repeats are interleaved. The delay is the
sidecar's own measure, from a frame's export until what it led to is on the board.
"""

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

from benchmarks.observe.pretend import PretendEngine, PretendLoad
from benchmarks.observe.receiver import Receiver
from trail.demo import demo_predictor_dir
from trail.predict.manifest import read_manifest
from trail.serving.launch import TrailSetup, free_port
from trail.serving.stack import Stack
from trail.wire.names import ENV_OTLP_ENDPOINT, ENV_QUALITY

STATES = ("off", "well", "away", "slow", "refuses", "back")
"""`slow` answers after 5 s; `back` is away for the first half of the time and well for the second."""
SLOW_S = 5.0
_START_S = 120.0


@dataclass(frozen=True)
class Outcome:
    """One run. Delays in microseconds; spans by what became of them."""

    state: str
    frames: int
    delay_p50_us: float
    delay_p99_us: float
    requests: int
    sent: int
    dropped: int


def measure(state: str, seconds: float, load: PretendLoad) -> Outcome:
    """One run of the sidecar. Raises ServerError where it does not start."""
    collector = _Collector(state)
    try:
        with tempfile.TemporaryDirectory(prefix="trail-collectors-") as work:
            return _measure(collector, seconds, load, Path(work))
    finally:
        collector.stop()


class _Collector:
    """A receiver in one of STATES, on a port that is closed while it is away."""

    def __init__(self, state: str) -> None:
        self.state = state
        self._port = free_port()
        self._receiver: Receiver | None = None
        if state in ("well", "slow", "refuses"):
            self.start()

    @property
    def endpoint(self) -> str:
        return "" if self.state == "off" else f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        receiver = self._receiver = Receiver(self._port)
        receiver.delay_s = SLOW_S if self.state == "slow" else 0.0
        receiver.error = grpc.StatusCode.INVALID_ARGUMENT if self.state == "refuses" else None
        receiver.start()

    def stop(self) -> None:
        if self._receiver is not None:
            self._receiver.stop()


def _measure(collector: _Collector, seconds: float, load: PretendLoad, work: Path) -> Outcome:
    stats, manifest = work / "stats.json", read_manifest(demo_predictor_dir())
    assert manifest.layer is not None  # noqa: S101 - the demo's predictor has a probe
    trail = TrailSetup(demo_predictor_dir(), manifest.layer, "trail", stats_file=stats, metrics_port=0)
    with Stack(
        None, (), trail, environ=_environment(collector.endpoint), log=work / collector.state
    ) as stack:
        stack.until_ready(_START_S)
        with closing(PretendEngine(stack.directory, manifest.hidden_size, manifest.layer, load)) as engine:
            engine.run(seconds / 2)
            if collector.state == "back":
                collector.start()
            engine.run(seconds / 2)
            metrics = _metrics(work / f"{collector.state}-sidecar.log")
    delays = json.loads(stats.read_text())["delay_us"]
    return Outcome(
        state=collector.state,
        frames=delays["count"],
        delay_p50_us=delays["p50"],
        delay_p99_us=delays["p99"],
        requests=engine.ended,
        sent=int(_sum(metrics, "trail_spans_sent_total")),
        dropped=int(_sum(metrics, "trail_spans_dropped_total")),
    )


def _environment(endpoint: str) -> dict[str, str]:
    out = {k: v for k, v in os.environ.items() if not k.startswith(("TRAIL_", "OTEL_"))}
    return {**out, ENV_OTLP_ENDPOINT: endpoint, ENV_QUALITY: "watch", "OMP_NUM_THREADS": "1"}


def _metrics(log: Path) -> str:
    (where,) = re.findall(r"metrics on (\S+)", log.read_text())
    with urllib.request.urlopen(where, timeout=5) as answer:  # noqa: S310 - our own sidecar on loopback
        text: str = answer.read().decode()
    return text


def _sum(metrics: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE))


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Medians over the repeats, a line a state."""
    head = ("p50 us", "p99 us", "p99 of each", "ended", "sent", "lost")
    lines = ["{:>10} {:>8} {:>8} {:>24} {:>7} {:>7} {:>7}".format("collector", *head)]
    for state in STATES:
        runs = [outcome for outcome in outcomes if outcome.state == state]
        if not runs:
            continue
        p99 = [run.delay_p99_us for run in runs]
        lines.append(
            f"{state:>10} {statistics.median(run.delay_p50_us for run in runs):>8.0f}"
            f" {statistics.median(p99):>8.0f} {' '.join(f'{value:.0f}' for value in p99):>24}"
            f" {sum(run.requests for run in runs):>7} {sum(run.sent for run in runs):>7}"
            f" {sum(run.dropped for run in runs):>7}"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, and write collectors.json where --out says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observe.collectors", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run (%(default)s)")
    parser.add_argument("--states", default=",".join(STATES))
    parser.add_argument("--out", type=Path, metavar="DIR")
    args = parser.parse_args(argv)
    states, load = args.states.split(","), PretendLoad()
    if unknown := sorted(set(states) - set(STATES)):
        parser.error(f"unknown states {', '.join(unknown)}; choose from {', '.join(STATES)}")
    outcomes: list[Outcome] = []
    for _ in range(args.repeats):
        for state in states:
            outcomes.append(measure(state, args.seconds, load))
            print(outcomes[-1], file=sys.stderr)
    print("\n".join(table(outcomes)))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        document: dict[str, Any] = {"load": asdict(load), "runs": [asdict(outcome) for outcome in outcomes]}
        (args.out / "collectors.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
