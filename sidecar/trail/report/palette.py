"""Colours: one hue a family, a variant each for light and for dark paper.

Figures are drawn in the light ones, which become CSS variables of the page, so that one SVG follows the
reader's theme.
"""

from collections.abc import Sequence
from dataclasses import dataclass

INK, GRID = "#010203", "#010204"
"""Stand in a figure for the page's text and lines."""

Rgb = tuple[int, int, int]
Dashes = tuple[float, ...] | None


@dataclass(frozen=True)
class Style:
    """How an arm or a line looks: its colour on light and on dark paper, and its dashes; None is solid."""

    light: str
    dark: str
    dashes: Dashes = None

    @property
    def variable(self) -> str:
        """The CSS variable that holds the colour."""
        return css_variable(self.light)


def css_variable(light: str) -> str:
    """The CSS variable of a colour that figures are drawn in."""
    return f"--c-{light[1:]}"


_POLICIES = {
    "trail-prompt": Style("#8a3ea8", "#cf90e6"),
    "trail": Style("#315eb0", "#8ab0ec"),
    "adaptive": Style("#a63543", "#ec9da0"),
    "fcfs": Style("#5f6672", "#a3abb8", (4.0, 2.0)),
    "sjf": Style("#b45f06", "#f0a33f", (6.0, 1.5, 1.2, 1.5)),
    "mlfq": Style("#7a6a00", "#d9c84a", (3.0, 1.2)),
    "oracle": Style("#187a4f", "#58c790", (1.2, 1.6)),
}
"""By the name that an arm's begins with; the first that fits."""
# Of families with a parameter, in the order in which their arms are named (c from 0 to 1): light to dark on
# paper, dark to light on a dark page.
_RAMPS: dict[str, tuple[tuple[Rgb, Rgb], tuple[Rgb, Rgb]]] = {
    "trail": (((127, 170, 235), (16, 62, 150)), ((62, 108, 190), (170, 205, 255))),
    "adaptive": (((226, 130, 130), (140, 20, 40)), ((190, 80, 90), (255, 190, 190))),
    "trail-prompt": (((201, 155, 220), (94, 33, 119)), ((150, 95, 175), (236, 205, 255))),
    "oracle": (((110, 190, 150), (15, 90, 58)), ((50, 140, 100), (170, 240, 205))),
}
_PREDICTORS = {
    "constant": Style("#5f6672", "#a3abb8", (4.0, 2.0)),
    "position": Style("#8a6d3b", "#c9ac78", (1.2, 1.6)),
    "prompt": Style("#b45f06", "#f0a33f", (6.0, 1.5, 1.2, 1.5)),
    "prompt-countdown": Style("#8a3ea8", "#cf90e6", (3.0, 1.2)),
    "trail-paper-raw": Style("#6699e0", "#5b86d6"),
    "trail-paper-refined": Style("#103e96", "#aacdff"),
    "default": Style("#187a4f", "#58c790"),
}
_OTHERS = (
    Style("#b02a4c", "#ff8ba5"),
    Style("#00798c", "#5cc8d8"),
    Style("#7a6a00", "#d8c64a"),
    Style("#5a4fcf", "#b3adff"),
)
PAIR = (Style("#2f63b8", "#8db8ff"), Style("#b45f06", "#f0a33f", (4.0, 2.0)))
"""Two lines of one figure that are no arms."""


def arm_styles(names: Sequence[str]) -> dict[str, Style]:
    """A style for every policy; it keeps its hue whichever others are beside it.

    Several of a family differ in shade.
    """
    styles = {}
    for name in names:
        family = _family(name)
        style = _POLICIES[family]
        alike = [n for n in dict.fromkeys(names) if _family(n) == family]
        if family in _RAMPS and len(alike) > 1:
            share = alike.index(name) / (len(alike) - 1)
            light, dark = (_between(ends, share) for ends in _RAMPS[family])
            style = Style(light, dark, style.dashes)
        styles[name] = style
    return styles


def predictor_styles(names: Sequence[str]) -> dict[str, Style]:
    """A style for every arm of an evaluation; the known ones keep their colours."""
    others = series_styles([name for name in names if name not in _PREDICTORS])
    return {name: _PREDICTORS.get(name) or others[name] for name in names}


def series_styles(names: Sequence[str]) -> dict[str, Style]:
    """Styles for lines that are no arms, such as devices."""
    return {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(names)}


def _family(name: str) -> str:
    """The policy that an arm's name begins with; results of other versions may have other names."""
    return next((f for f in _POLICIES if name == f or name.startswith(f"{f}-")), "oracle")


def _between(ends: tuple[Rgb, Rgb], share: float) -> str:
    """The colour at `share` of the way from the first to the second, as `#rrggbb`."""
    mixed = (round(a + share * (b - a)) for a, b in zip(*ends, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)
