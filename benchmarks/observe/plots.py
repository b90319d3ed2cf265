"""What the sidecar reported over time, and predictions against lengths, as SVG."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trail.report.figures import svg
from trail.report.palette import INK, ArmStyle

STYLES = {
    "one": ArmStyle("one", "#2f63b8", "#8db8ff", "#0b0001", "--plot-one", None),
    "two": ArmStyle("two", "#b45f06", "#f0a33f", "#0b0002", "--plot-two", (4.0, 2.0)),
}
"""Two lines that every plot can tell apart; the page sets their colours."""


def over_time(series: Mapping[str, Sequence[float]]) -> str:
    """Queue, KV cache, predicted work and preemptions, by seconds since the first sample."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2, 2, sharex=True).flat
        for ax, (title, one, two) in zip(
            axes,
            (
                ("requests: running, waiting", "running", "waiting"),
                ("KV cache in use, share", "kv_usage", None),
                ("predicted tokens: running, waiting", "running_tokens", "waiting_tokens"),
                ("preemptions: by the policy, by memory", "policy_preemptions", "memory_preemptions"),
            ),
            strict=True,
        ):
            _line(ax, series["at_s"], series[one], STYLES["one"])
            if two is not None:
                _line(ax, series["at_s"], series[two], STYLES["two"])
            ax.set_title(title)
            ax.set_ylim(bottom=0)
        for ax in list(figure.axes)[2:]:
            ax.set_xlabel("seconds")

    return svg(draw, STYLES, "over-time", 10.0, 5.2)


def predictions(pairs: Sequence[Sequence[float]]) -> str:
    """Predicted against actual lengths, (actual, initial, last refined) a request, in tokens."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        actual = [pair[0] for pair in pairs]
        most = max((max(pair) for pair in pairs), default=1.0)
        for ax, column, title in zip(panels, (1, 2), ("initial prediction", "last refined"), strict=True):
            values = [pair[column] for pair in pairs]
            ax.plot(
                actual, values, "o", markersize=3, alpha=0.6, markeredgewidth=0, color=STYLES["one"].marker
            )
            ax.plot([0, most], [0, most], color=INK, linewidth=0.8, dashes=(3, 2))
            ax.set_title(f"{title}, tokens")
            ax.set_xlabel("tokens that came")

    return svg(draw, STYLES, "predictions", 10.0, 3.6)


def _line(ax: Axes, x: Sequence[float], y: Sequence[float], style: ArmStyle) -> None:
    (line,) = ax.plot(x, y, color=style.marker)
    if style.dashes:
        line.set_dashes(style.dashes)
