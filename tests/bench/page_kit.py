"""What every page of a report has to be: whole in itself, and readable."""

import re


def assert_self_contained(page: str) -> None:
    """No script, no reference to anywhere else; every id once, and there where something refers to it."""
    assert "<script" not in page
    assert all(link.startswith(("#", "data:")) for link in re.findall(r'(?:src|href|action)="([^"]*)"', page))
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert all(ref in ids for ref in re.findall(r'(?:url\(|href=")#([^")]+)', page))


def contrast(a: str, b: str) -> float:
    """Of two colours `#rrggbb`, as WCAG has it: 1 to 21."""
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
