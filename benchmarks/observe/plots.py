"""What the sidecar reported over time, and predictions against lengths, as SVG."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from trail.report.figures import RULE, line, svg
from trail.report.palette import PAIR


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
            for name, style in zip((one, two), PAIR, strict=True):
                if name is not None:
                    line(ax, series["at_s"], series[name], style, name)
            ax.set_title(title)
            ax.set_ylim(bottom=0)
        for ax in list(figure.axes)[2:]:
            ax.set_xlabel("seconds")

    return svg("over-time", 5.2, draw)


def predictions(pairs: Sequence[Sequence[float]]) -> str:
    """Predicted against actual lengths, (actual, initial, last refined) a request, in tokens."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        actual = [pair[0] for pair in pairs]
        most = max((max(pair) for pair in pairs), default=1.0)
        for ax, column, title in zip(panels, (1, 2), ("initial prediction", "last refined"), strict=True):
            values = [pair[column] for pair in pairs]
            ax.plot(actual, values, "o", markersize=3, alpha=0.6, markeredgewidth=0, color=PAIR[0].light)
            ax.plot([0, most], [0, most], **RULE)
            ax.set_title(f"{title}, tokens")
            ax.set_xlabel("tokens that came")

    return svg("predictions", 3.6, draw)
