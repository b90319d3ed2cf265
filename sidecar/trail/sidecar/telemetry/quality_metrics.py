"""Metrics of whether the predictions are still right (`predict.quality`)."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from trail.predict.rolling import PREDICTORS, Errors
from trail.sidecar.quality.monitor import QualityMonitor
from trail.sidecar.telemetry.families import counter, gauge, plain_gauge


class QualityMetrics:
    """The monitor's last snapshot. What is not known, as without a predictor, is left out."""

    def __init__(self, monitor: QualityMonitor) -> None:
        self._monitor = monitor

    def families(self) -> Iterator[Metric]:
        """All families, one after another."""
        found = self._monitor.snapshot
        judged = counter(
            "trail_judged_requests",
            "Ended requests that predictions were judged by: whole, or cut at a limit.", "end",
        )  # fmt: skip
        judged.add_metric(["whole"], found.finished - found.cut)
        judged.add_metric(["cut"], found.cut)
        yield judged
        yield gauge(
            "trail_predictor_trusted", "1 while a predictor is judged better than doing without it.",
            "predictor", {"probe": float(found.standing.probe), "prompt": float(found.standing.prompt)},
        )  # fmt: skip
        yield gauge(
            "trail_predictor_evidence_ratio",
            "Evidence for the next change of that verdict, 0 none to 1 enough.", "predictor",
            {"probe": found.probe_evidence, "prompt": found.prompt_evidence},
        )  # fmt: skip
        switches = counter("trail_predictor_switches", "Changes of these verdicts.")
        switches.add_metric([], found.switches)
        yield switches
        last = found.last
        yield gauge(
            "trail_predictor_error_tokens", "Mean absolute error of predicted remaining length, of late.",
            "predictor", _by_predictor(last.errors),
        )  # fmt: skip
        yield gauge(
            "trail_predictor_error_artefact_tokens", "The same on the predictor's own held-out answers.",
            "predictor", _by_predictor(found.artefact),
        )  # fmt: skip
        yield gauge(
            "trail_probe_error_by_progress_tokens", "The probe's, by how far a request had come.",
            "progress", last.by_progress,
        )  # fmt: skip
        yield gauge(
            "trail_probe_error_by_length_tokens", "The probe's, by the whole length of a request.", "length",
            last.by_length,
        )  # fmt: skip
        yield plain_gauge(
            "trail_coverage80_ratio", "Share of lengths within the central 80 % of what was predicted.",
            last.coverage80,
        )  # fmt: skip
        yield plain_gauge(
            "trail_calibration_error_ratio", "Mean difference of stated and observed frequencies.",
            last.calibration_error,
        )  # fmt: skip
        yield plain_gauge(
            "trail_correction_stretch", "Factor that predictions are corrected by.", found.correction.stretch
        )
        yield plain_gauge(
            "trail_correction_sharpness", "Power that predicted distributions are corrected by.",
            found.correction.sharpness,
        )  # fmt: skip


def _by_predictor(errors: Errors) -> dict[str, float]:
    return {name: getattr(errors, name) for name in PREDICTORS}
