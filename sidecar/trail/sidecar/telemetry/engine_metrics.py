"""Metrics of what engines report: their load and work, and what is predicted of it."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from trail.sidecar.loop.backlog import Backlog, backlog_of
from trail.sidecar.loop.pipeline import EnginePipeline
from trail.sidecar.telemetry.families import counter, gauge, plain_gauge

_LOAD_GAUGES = {
    "waiting": "Requests that wait in the engine.",
    "running": "Requests that run in the engine.",
    "kv_usage": "Share of the KV cache in use, 0 to 1.",
}
_LOAD_COUNTERS = {
    "preemptions_total": "Preemptions, for want of memory and by policy.",
    "policy_preemptions_total": "Preemptions by policy.",
    "preemptions_denied_total": "Preemptions that a protected request was spared.",
    "recomputed_tokens_total": "Tokens computed again after a preemption.",
    "fallback_steps_total": "Engine steps served first come, first served, for want of a live sidecar.",
    "steps_total": "Engine steps.",
}


class EngineMetrics:
    """What the engines said last."""

    def __init__(self, pipelines: Iterable[EnginePipeline]) -> None:
        self._pipelines = {str(pipeline.engine): pipeline for pipeline in pipelines}

    def families(self) -> Iterator[Metric]:
        """All families, one after another."""
        pipelines = self._pipelines
        info = InfoMetricFamily(
            "trail_engine", "What an engine said of itself when it connected.", labels=["engine"]
        )
        for name, pipeline in pipelines.items():
            if pipeline.hello is not None:
                info.add_metric(
                    [name], {"model": pipeline.hello.model, "vllm_version": pipeline.hello.vllm_version}
                )
        yield info
        for field, text in _LOAD_GAUGES.items():
            values = {name: float(getattr(pipeline.load, field)) for name, pipeline in pipelines.items()}
            yield gauge(f"trail_engine_{field}", text, "engine", values)
        for field, text in _LOAD_COUNTERS.items():
            family = counter(f"trail_engine_{field}", text, "engine")
            for name, pipeline in pipelines.items():
                family.add_metric([name], getattr(pipeline.load, field))
            yield family
        yield from self._of_requests()

    def _of_requests(self) -> Iterator[Metric]:
        pipelines = self._pipelines
        generated = counter("trail_generated_tokens", "Tokens generated, as far as they were seen.", "engine")
        denied = counter(
            "trail_preemptions_denied", "Preemptions that were not granted, by what spoke against it.",
            "engine", "cause",
        )  # fmt: skip
        observers = counter(
            "trail_observer_failures", "Errors of what observes requests; they are served regardless.",
            "engine",
        )  # fmt: skip
        for name, pipeline in pipelines.items():
            generated.add_metric([name], pipeline.tracker.generated_tokens)
            for cause, count in pipeline.timelines.denied.copy().items():
                denied.add_metric([name, cause.label], count)
            observers.add_metric([name], pipeline.timelines.listener_failures)
        yield from (generated, denied, observers)
        yield gauge(
            "trail_open_requests", "Open requests.", "engine",
            {name: len(pipeline.tracker) for name, pipeline in pipelines.items()},
        )  # fmt: skip
        yield gauge(
            "trail_protected_requests", "Running requests that are past their cut-off age.", "engine",
            {name: sum(t.protected for t in one.timelines.running()) for name, one in pipelines.items()},
        )  # fmt: skip


class BacklogMetrics:
    """Predicted work, for autoscalers and routers; the gRPC call `Observe.Backlog` gives the same."""

    def __init__(self, pipelines: Iterable[EnginePipeline]) -> None:
        self._pipelines = tuple(pipelines)

    def families(self) -> Iterator[Metric]:
        """All families, one after another."""
        backlogs = [backlog_of(pipeline) for pipeline in self._pipelines]
        requests = GaugeMetricFamily(
            "trail_backlog_requests", "Open requests, by whether they wait or run.",
            labels=["engine", "state"],
        )  # fmt: skip
        tokens = GaugeMetricFamily(
            "trail_backlog_tokens", "Tokens that open requests are predicted to generate yet.",
            labels=["engine", "state"],
        )  # fmt: skip
        for backlog in backlogs:
            engine = str(backlog.engine)
            requests.add_metric([engine, "waiting"], backlog.waiting_requests)
            requests.add_metric([engine, "running"], backlog.running_requests)
            tokens.add_metric([engine, "waiting"], backlog.waiting_tokens)
            tokens.add_metric([engine, "running"], backlog.running_tokens)
        yield from (requests, tokens)
        yield plain_gauge(
            "trail_pod_backlog_tokens", "The same, waiting and running, of all engines of the pod together.",
            sum(_tokens(backlog) for backlog in backlogs),
        )  # fmt: skip
        yield gauge(
            "trail_engine_tokens_per_second", "Tokens that the engine generates a second of late.", "engine",
            {str(backlog.engine): backlog.tokens_per_s for backlog in backlogs},
        )  # fmt: skip
        yield gauge(
            "trail_wait_seconds", "How long the queue is, held at its peak.", "engine",
            {str(backlog.engine): backlog.wait_s for backlog in backlogs},
        )  # fmt: skip
        yield gauge(
            "trail_step_seconds", "Time of an engine step.", "engine",
            {str(pipeline.engine): pipeline.queue_estimate.token_s for pipeline in self._pipelines},
        )  # fmt: skip


def _tokens(backlog: Backlog) -> float:
    return backlog.waiting_tokens + backlog.running_tokens
