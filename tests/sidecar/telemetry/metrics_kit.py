"""A sidecar's whole registry after requests have come and gone, and the page that lists what it exports."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Metric
from service_kit import BINS, HIDDEN, LAYER, Bench, started, vector

from trail.policy.spec import PolicySpec
from trail.predict.fingerprint import architecture_fingerprint
from trail.predict.manifest import Manifest
from trail.predict.quality import Quality
from trail.sidecar.history.decision_log import DecisionLog
from trail.sidecar.pacing import SHARED_CORES
from trail.sidecar.quality.monitor import QualityMonitor
from trail.sidecar.redis.config import RedisConfig
from trail.sidecar.redis.link import LinkCollector, RedisLink
from trail.sidecar.telemetry.catalogue import complete
from trail.sidecar.telemetry.families import StateCollector
from trail.sidecar.telemetry.otlp_metrics import OtlpMetrics
from trail.sidecar.telemetry.otlp_settings import OtlpSettings
from trail.sidecar.telemetry.spans import SpanMaker
from trail.sidecar.telemetry.state_metrics import DecisionMetrics
from trail.sidecar.telemetry.trace_config import TraceConfig
from trail.sidecar.telemetry.tracing import TraceCollector, Tracing
from trail.wire.changes import Cause, Change
from trail.wire.frames import Kind
from trail.wire.lifecycle import Changed, Clocks, EngineSummary, Finished, Hello, Load

S = 10**9
WALL_S = 1_000_000
DOCS = Path(__file__).parents[3] / "docs"
ADAPTIVE = PolicySpec("adaptive")


def manifest() -> Manifest:
    """A predictor's, as much of it as the judging of predictions reads."""
    architecture = {"hidden_size": HIDDEN, "num_hidden_layers": LAYER + 1}
    held_out = {"mae_refined_tokens": 9.0, "mae_prompt_tokens": 12.0, "mae_constant_tokens": 20.0}
    return Manifest(
        model_id="example/small", model_revision="abc", weights_fingerprint="0" * 64,
        model_fingerprint=architecture_fingerprint(architecture), architecture=architecture,
        layer=LAYER, hidden_size=HIDDEN, num_layers=LAYER + 1, bins=BINS, training_data_sha256="0" * 64,
        mean_output_tokens=30.0, metrics={"held_out": held_out},
    )  # fmt: skip


class Served(Bench):
    """A pipeline whose metrics are all there, and an engine's side of the story. Times in seconds."""

    def __init__(self, directory: Path, spec: PolicySpec = ADAPTIVE) -> None:
        self.monitor = QualityMonitor(Quality(manifest(), fit_from=2), has_prompt=True)
        super().__init__(directory, spec, quality=self.monitor)
        complete(
            self.telemetry.metrics, [self.pipeline], self.policy, lambda: self.mean.value, self.monitor,
            pacing=SHARED_CORES,
        )  # fmt: skip
        self.registry = self.telemetry.metrics.registry
        hello = Hello(engine=0, hidden_size=HIDDEN, layers=(LAYER,), model="example/small", vllm_version="9")
        self.apply(hello, Clocks(0, WALL_S * S))

    def arrive(self, key: int, at_s: float, predicted: float, prompt_tokens: int = 5) -> None:
        """A request enters the queue in the slot of its key."""
        queued = EngineSummary(queued_ns=int(at_s * S))
        self.apply(started(key, key, prompt_tokens, arrival_time_s=WALL_S + at_s, summary=queued))
        self.pipeline.tracker.set_prompt_prediction(key, predicted)
        self.pipeline.step()

    def change(self, key: int, change: Change, at_s: float, **more: Any) -> None:
        self.apply(Changed(key, change, int(at_s * S), **more))

    def generate(self, key: int, age: int, remaining: float = 24.0) -> None:
        """The worker exports a vector of a request at `age`, from which the probe reads `remaining`."""
        middle = BINS.midpoints
        share = np.clip(1 - np.abs(middle - remaining) / (middle[1] - middle[0]), 0.05, None)
        self.export((key, 5 + age, Kind.TOKEN if age else Kind.PROMPT, vector(*share)))
        self.pipeline.step()

    def finish(self, key: int, tokens: int, reason: str = "stop", **summary: float) -> None:
        """It ends; `summary` in seconds: queued, admitted, first_token, ended, waited."""
        times = {f"{name}_ns": int(value * S) for name, value in summary.items()}
        self.apply(
            Finished(
                key=key, slot=key, output_tokens=tokens, finish_reason=reason, summary=EngineSummary(**times)
            )
        )

    def load(self, **values: Any) -> None:
        self.apply(Load(**values))

    def value(self, name: str, **labels: str) -> float | None:
        """A sample as a scrape has it."""
        return self.registry.get_sample_value(name, labels)


def play(served: Served) -> None:
    """Something of everything: waits, preemption, refusal, protection, an end and a broken-off request."""
    served.arrive(1, 1.0, 40.0)
    served.arrive(2, 1.5, 8.0)
    served.change(1, Change.ADMITTED, 2.0)
    served.change(2, Change.DENIED, 2.0, cause=Cause.RATIO, other=1)
    served.generate(1, age=0)
    served.change(1, Change.FIRST_TOKEN, 2.5, age=1)
    served.change(2, Change.ADMITTED, 3.0)
    served.generate(1, age=5)
    served.change(1, Change.PREEMPTED, 4.0, age=5, cause=Cause.KV_FULL)
    served.change(1, Change.RESUMED, 5.0, age=5)
    for age in (10, 20, 30):
        served.generate(1, age=age)
    served.finish(1, 31, queued=1.0, admitted=2.0, first_token=2.5, ended=8.5, waited=2.0)
    served.finish(2, 1, "abort", queued=1.5, admitted=3.0, first_token=3.5, ended=4.0, waited=1.5)
    served.load(waiting=1, running=2, kv_usage=0.5, preemptions_total=1, steps_total=40)
    served.arrive(3, 9.0, 16.0)
    served.pipeline.counters.ignored["layer"] = 1
    served.monitor.look()
    served.telemetry.metrics.failures.labels(part="loop").inc()
    served.telemetry.metrics.prompt_seconds.observe(0.01)


def sidecar_registry(served: Served) -> CollectorRegistry:
    """With what a sidecar has besides where Redis and a collector are configured."""
    link = RedisLink(
        RedisConfig("redis://127.0.0.1:1", "shop/deployment/llama", "pod"),
        report=lambda: None,  # type: ignore[arg-type,return-value]  # never asked: the link is not started
        apply=lambda record: None,
    )
    link.counters.rejected["c"] = 1
    served.registry.register(LinkCollector(link))
    OtlpMetrics(OtlpSettings("http://127.0.0.1:1"), served.registry, dict)
    tracing = Tracing(
        SpanMaker(TraceConfig("http://127.0.0.1:1")), lambda _: True, lambda _: True, "nowhere", SHARED_CORES
    )
    served.registry.register(TraceCollector(tracing))
    decisions = DecisionLog(Path("never-opened"), 1, [])
    failures = served.telemetry.metrics.failures
    served.registry.register(StateCollector(DecisionMetrics(decisions), failures))
    return served.registry


@dataclass(frozen=True)
class Listed:
    """A metric as the page lists it."""

    kind: str
    unit: str
    labels: tuple[str, ...]
    of: str
    meaning: str


_ROW = re.compile(r"^\| `(trail_\w+)` \| (\w+) \| (\S+) \| (.*?) \| (\w+) \| (.+) \|$")


def page() -> dict[str, Listed]:
    """Metrics by name, as docs/metrics.md lists them."""
    found: dict[str, Listed] = {}
    for line in (DOCS / "metrics.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `trail_"):
            row = _ROW.match(line)
            assert row is not None, f"not a row of the catalogue: {line}"
            name, kind, unit, labels, of, meaning = row.groups()
            assert name not in found, f"{name} is listed twice"
            found[name] = Listed(kind, unit, tuple(re.findall(r"`(\w+)`", labels)), of, meaning)
    return found


def series_names(families: dict[str, Listed]) -> dict[str, tuple[str, Listed]]:
    """Names as queries write them, each with its family's: `_total`, `_bucket`, `_sum`, `_count`, `_info`."""
    found = {}
    for name, listed in families.items():
        for suffix in {
            "counter": ("_total",), "gauge": ("",), "info": ("_info",),
            "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count"),
        }[listed.kind]:  # fmt: skip
            found[name + suffix] = (name, listed)
    return found


def labels_of(family: Metric) -> set[str]:
    """Labels that a family's samples have, without a histogram's own."""
    return {label for sample in family.samples for label in sample.labels} - {"le"}


TARGET = {"namespace", "pod", "exported_namespace"}
"""Labels that Prometheus gives: of the place a series comes from, and the operator's own of that name."""
_SELECTOR = re.compile(r"(trail_\w+)(?:\{([^}]*)\})?(\[[^\]]+\])?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_BY = re.compile(r"by \(([^)]*)\)")


def check_query(query: str) -> set[str]:
    """The series that a query asks for.

    Raises AssertionError where the page lists no such name or label, or a range is of what does not grow.
    """
    known, found, labels = series_names(page()), set(), set(TARGET)
    for name, matchers, a_range in _SELECTOR.findall(query):
        assert name in known, f"{name} is no series of docs/metrics.md"
        family, listed = known[name]
        own = {*listed.labels, *TARGET} | ({"le"} if name.endswith("_bucket") else set())
        for label in _MATCHER.findall(matchers):
            assert label in own, f"{family} has no label {label}"
        grows = listed.kind in ("counter", "histogram", "summary")
        assert grows == bool(a_range), f"{name}: {listed.kind}, range {a_range!r}"
        found.add(name)
        labels |= own
    for names in _BY.findall(query):
        assert set(names.split(", ")) <= labels, f"by {names}: no series has it"
    return found
