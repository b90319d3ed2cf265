"""Colours of the evaluation's arms, in the style of the benchmark's (`trail.report.palette`)."""

from collections.abc import Sequence

from trail.report.palette import ArmStyle

_ARMS = {
    "constant": ("#5f6672", "#a3abb8"),
    "position": ("#8a6d3b", "#c9ac78"),
    "prompt": ("#b45f06", "#f0a33f"),
    "prompt-countdown": ("#8a3ea8", "#cf90e6"),
    "trail-paper-raw": ("#6699e0", "#5b86d6"),
    "trail-paper-refined": ("#103e96", "#aacdff"),
    "default": ("#187a4f", "#58c790"),
}
_OTHERS = (("#b02a4c", "#ff8ba5"), ("#00798c", "#5cc8d8"), ("#7a6a00", "#d8c64a"), ("#5a4fcf", "#b3adff"))
_DASHES = {
    "constant": (4.0, 2.0),
    "position": (1.2, 1.6),
    "prompt": (6.0, 1.5, 1.2, 1.5),
    "prompt-countdown": (3.0, 1.2),
}
_MARKER = "#0a{:02x}{:02x}"


def arm_styles(names: Sequence[str]) -> dict[str, ArmStyle]:
    """A style for every arm; the known arms keep their colours whichever others are beside them."""
    return _styles(names, "arm", 1)


def series_styles(names: Sequence[str]) -> dict[str, ArmStyle]:
    """Styles for lines that are no arms, such as devices."""
    return _styles(names, "series", 2)


def _styles(names: Sequence[str], prefix: str, group: int) -> dict[str, ArmStyle]:
    unknown = [name for name in names if name not in _ARMS]
    styles = {}
    for i, name in enumerate(names):
        light, dark = _ARMS.get(name) or _OTHERS[unknown.index(name) % len(_OTHERS)]
        marker = _MARKER.format(group, i)
        styles[name] = ArmStyle(name, light, dark, marker, f"--{prefix}-{i}", _DASHES.get(name))
    return styles
