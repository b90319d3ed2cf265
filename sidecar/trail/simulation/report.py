"""The report of `trail bench` with what only a sweep can show: arms over load, and over c."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trail.report.figures import svg
from trail.report.palette import INK, ArmStyle, arm_styles
from trail.report.render import render_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLES = {"mean_ratio": "mean latency", "ttft_ratio": "mean TTFT", "p99_ratio": "p99 latency"}
_BEFORE = "<section>\n<h2>How this was measured</h2>"

Sweep = Sequence[Mapping[str, Any]]
Styles = Mapping[str, ArmStyle]


def render(results: Mapping[str, Any]) -> str:
    """The page for results with a part `sweep`."""
    sweep: Sweep = results["sweep"]
    styles = arm_styles(list(results["arms"]))
    sections = [
        _section(
            "Over load",
            load_figure(sweep, styles),
            "Times as multiples of stock FCFS on the same requests, by load. Below 1 is better; bars are 95 %"
            " intervals over seeds.",
        ),
        _section(
            "Over c",
            c_figure(sweep, styles),
            "The same at the last load, by the bound c on preemption: 0 protects what runs, 1 allows all.",
        ),
    ]
    page = render_report(results)
    return page.replace(_BEFORE, "".join(sections) + _BEFORE, 1)


def _section(title: str, drawn: str | None, caption: str) -> str:
    if drawn is None:
        return ""
    figure = f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>"
    return f"<section>\n<h2>{title}</h2>\n{figure}\n</section>\n"


def load_figure(sweep: Sweep, styles: Styles) -> str | None:
    """Ratios to stock FCFS over load, a line an arm; None for one load, or without stock FCFS."""
    loads = [_load(entry["load"]) for entry in sweep]
    if len(sweep) < 2 or None in loads:
        return None
    lines = {
        name: [
            (x, entry["arms"][name]) for x, entry in zip(loads, sweep, strict=True) if name in entry["arms"]
        ]
        for name in styles
    }
    return _ratios(lines, styles, "load", "load, times the capacity of stock FCFS", {})


def c_figure(sweep: Sweep, styles: Styles) -> str | None:
    """Ratios over c at the last load, a line a policy; None where no policy has two values of c."""
    families: dict[str, list[tuple[str, Any]]] = {}
    for name, arm in sweep[-1]["arms"].items():
        if arm["c"] is not None:
            families.setdefault(name.replace(f"-c{arm['c']:g}", ""), []).append((name, arm))
    # A family is drawn as its first arm.
    lines = {
        members[0][0]: sorted(((a["c"], a) for _, a in members), key=lambda point: point[0])
        for members in families.values()
    }
    return _ratios(lines, styles, "c", "c", {m[0][0]: family for family, m in families.items()})


def _load(text: str) -> float | None:
    return float(text[:-1]) if text.endswith("x") else None


def _ratios(
    lines: Mapping[str, Sequence[tuple[Any, Mapping[str, Any]]]],
    styles: Styles,
    name: str,
    axis: str,
    labels: Mapping[str, str],
) -> str | None:
    shown = {
        arm: [(x, entry) for x, entry in points if "mean_ratio" in entry] for arm, points in lines.items()
    }
    shown = {arm: points for arm, points in shown.items() if len(points) > 1}
    if not shown:
        return None

    def draw(figure: "Figure") -> None:
        from matplotlib.ticker import LogLocator, NullLocator

        panels = figure.subplots(1, len(_TITLES))
        for ax, (quantity, title) in zip(panels, _TITLES.items(), strict=True):
            for arm, points in shown.items():
                _line(ax, points, quantity, styles[arm], labels.get(arm, arm))
            ax.axhline(1.0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
            ax.set_title(title, loc="left", fontsize=10)
            ax.set_xlabel(axis)
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
            ax.yaxis.set_major_formatter(lambda value, _place: f"{value:g}")
            ax.yaxis.set_minor_locator(NullLocator())
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=6, handlelength=2.4
        )

    return svg(draw, dict(styles), f"sweep-{name}", 10.0, 4.2)


def _line(
    ax: "Axes",
    points: Sequence[tuple[Any, Mapping[str, Any]]],
    quantity: str,
    style: ArmStyle,
    label: str,
) -> None:
    x = [at for at, _ in points]
    y = [entry[quantity] for _, entry in points]
    (line,) = ax.plot(x, y, color=style.marker, marker="o", markersize=3.5, label=label)
    if style.dashes:
        line.set_dashes(style.dashes)
    for at, entry in points:
        bounds = entry[f"{quantity}_ci95"]
        if bounds:
            ax.plot([at, at], bounds, color=style.marker, linewidth=1.0, alpha=0.6)
