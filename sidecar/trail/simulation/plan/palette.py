"""Colours of policies that differ in c alone: shades of their family's hue in the benchmark's report."""

from collections.abc import Sequence
from dataclasses import replace

from trail.report.palette import ArmStyle, arm_styles, between

# From little to much preemption: light to dark on paper, dark to light on a dark page.
_SHADES = {
    "trail-prompt": (((201, 155, 220), (94, 33, 119)), ((150, 95, 175), (236, 205, 255))),
    "oracle": (((110, 190, 150), (15, 90, 58)), ((50, 140, 100), (170, 240, 205))),
}


def policy_styles(names: Sequence[str]) -> dict[str, ArmStyle]:
    """A style for every policy; alone in its family it has the benchmark's colour."""
    styles = arm_styles(names)
    for family, (light, dark) in _SHADES.items():
        members = [name for name in names if name == family or name.startswith(f"{family}-c")]
        for place, name in enumerate(members if len(members) > 1 else []):
            share = place / (len(members) - 1)
            styles[name] = replace(styles[name], light=between(light, share), dark=between(dark, share))
    return styles
