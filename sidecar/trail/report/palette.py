"""Colours of arms: one hue a family, light and dark variants, set as CSS variables by the page.

Figures are drawn in marker colours that stand for CSS variables, so that one SVG follows the reader's theme.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_FIXED = {
    "fcfs": ("#5f6672", "#a3abb8"),
    "sjf": ("#b45f06", "#f0a33f"),
    "trail-prompt": ("#8a3ea8", "#cf90e6"),
    "mlfq": ("#7a6a00", "#d9c84a"),
    "oracle": ("#187a4f", "#58c790"),
}
# Of families with a parameter, in the order in which their arms are named (c from 0 to 1): light to dark on
# paper, dark to light on a dark page.
_RAMPS = {
    "trail": (((127, 170, 235), (16, 62, 150)), ((62, 108, 190), (170, 205, 255))),
    "adaptive": (((226, 130, 130), (140, 20, 40)), ((190, 80, 90), (255, 190, 190))),
}
_DASHES = {"fcfs": (4.0, 2.0), "oracle": (1.2, 1.6), "sjf": (6.0, 1.5, 1.2, 1.5), "mlfq": (3.0, 1.2)}

INK, GRID = "#010203", "#010204"
_MARKER = "#0a00{:02x}"


@dataclass(frozen=True)
class ArmStyle:
    """How one arm looks. `marker` stands in figures for the CSS variable `variable`."""

    name: str
    light: str
    dark: str
    marker: str
    variable: str
    dashes: tuple[float, ...] | None


def arm_styles(names: Sequence[str]) -> dict[str, ArmStyle]:
    """A style for every arm; an arm keeps its hue whichever others are beside it."""
    styles = {}
    for i, name in enumerate(names):
        family = _family(name)
        if family in _RAMPS:
            alike = [n for n in names if _family(n) == family]
            share = 0.7 if len(alike) == 1 else alike.index(name) / (len(alike) - 1)
            light, dark = (between(ends, share) for ends in _RAMPS[family])
        else:
            light, dark = _FIXED[family]
        styles[name] = ArmStyle(name, light, dark, _MARKER.format(i), f"--arm-{i}", _DASHES.get(family))
    return styles


def to_css_colours(svg: str, styles: Sequence[ArmStyle]) -> str:
    """Replace the stand-in colours in a drawn figure by the page's variables."""
    svg = svg.replace(INK, "currentColor").replace(GRID, "var(--grid)")
    for style in styles:
        svg = svg.replace(style.marker, f"var({style.variable})")
    return svg


def _family(name: str) -> str:
    """The policy that an arm's name begins with; results of other versions may have other names."""
    known = ("trail-prompt", *_RAMPS, *_FIXED)
    return next((f for f in known if name == f or name.startswith(f"{f}-")), "oracle")


def between(ends: tuple[tuple[int, int, int], tuple[int, int, int]], share: float) -> str:
    """The colour at `share` of the way from the first to the second, as `#rrggbb`."""
    mixed = (round(a + share * (b - a)) for a, b in zip(*ends, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)
