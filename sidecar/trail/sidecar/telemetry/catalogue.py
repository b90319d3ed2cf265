"""All metrics of a sidecar in one registry. docs/metrics.md lists them; a test holds the two together."""

from collections.abc import Callable, Collection

from trail.sidecar.loop.counters import Metrics
from trail.sidecar.loop.pipeline import EnginePipeline
from trail.sidecar.loop.policy_box import PolicyBox
from trail.sidecar.pacing import Pacing
from trail.sidecar.quality.monitor import QualityMonitor
from trail.sidecar.telemetry.engine_metrics import BacklogMetrics, EngineMetrics
from trail.sidecar.telemetry.families import StateCollector
from trail.sidecar.telemetry.quality_metrics import QualityMetrics
from trail.sidecar.telemetry.request_metrics import RequestMetrics
from trail.sidecar.telemetry.state_metrics import FrameMetrics, PolicyMetrics


def complete(
    metrics: Metrics,
    pipelines: Collection[EnginePipeline],
    policy: PolicyBox,
    mean: Callable[[], float],
    quality: QualityMonitor,
    *,
    pacing: Pacing,
) -> None:
    """Adds to the registry of `metrics` what is read from state, and what pipelines tell of requests."""
    for source in (
        PolicyMetrics(policy, mean, pacing),
        FrameMetrics(pipelines),
        EngineMetrics(pipelines),
        BacklogMetrics(pipelines),
        QualityMetrics(quality),
    ):
        metrics.registry.register(StateCollector(source, metrics.failures))
    requests = RequestMetrics(metrics.registry, lambda: policy.current[0])
    for pipeline in pipelines:
        pipeline.timelines.listeners.append(requests)
