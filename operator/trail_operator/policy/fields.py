"""Fields of an object that somebody wrote, as typed values.

`where` is the path of the object with a dot at its end, as messages name it. An absent field, or null, is the
default; without a default it is an error. Everything here raises PolicyError.
"""

import re
from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]


class PolicyError(ValueError):
    """A TrailPolicy cannot be used; the message names the field, its value and what may stand there."""


def mapping(obj: Object, key: str, where: str) -> Object:
    """An object; empty where there is none."""
    value = obj.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise PolicyError(f"{where}{key} is {_shown(value)}; it must be an object")
    return value


def text(obj: Object, key: str, where: str, default: str | None = None, most: int = 253) -> str:
    """A text of 1 to `most` characters."""
    value = obj.get(key)
    if value is None and default is not None:
        return default
    # An empty string says no more than an absent one, except for a label's value.
    if not isinstance(value, str) or not (value or where.endswith("matchLabels.")) or len(value) > most:
        raise PolicyError(f"{where}{key} is {_shown(value)}; give a text of 1 to {most} characters")
    return value


def matching(obj: Object, key: str, where: str, pattern: re.Pattern[str], what: str) -> str:
    """A text that `pattern` has as a whole."""
    value = text(obj, key, where, most=2048)
    if not pattern.fullmatch(value):
        raise PolicyError(f"{where}{key} is {_shown(value)}; give {what}")
    return value


def path(obj: Object, where: str, pattern: re.Pattern[str], default: str, what: str) -> str:
    """The field `path`, that `pattern` has as a whole."""
    value = obj.get("path")
    if value is None:
        return default
    if not isinstance(value, str) or not pattern.fullmatch(value) or len(value) > 1024:
        raise PolicyError(f"{where}path is {_shown(value)}; give {what}")
    return value


def choice(obj: Object, key: str, where: str, choices: tuple[str, ...], default: str | None = None) -> str:
    """One of `choices`."""
    value = obj.get(key)
    if value is None and default is not None:
        return default
    if value not in choices:
        raise PolicyError(f"{where}{key} is {_shown(value)}; choose one of {', '.join(choices)}")
    return str(value)


def number(obj: Object, key: str, where: str, bounds: tuple[float, float], default: float = 0.0) -> float:
    """A number within `bounds`, both ends included."""
    low, high = bounds
    value = obj.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise PolicyError(f"{where}{key} is {_shown(value)}; give a number from {low:g} to {high:g}")
    return float(value)


def whole(obj: Object, key: str, where: str, bounds: tuple[int, int], default: int | None = None) -> int:
    """A whole number within `bounds`, both ends included."""
    low, high = bounds
    value = obj.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise PolicyError(f"{where}{key} is {_shown(value)}; give a whole number from {low} to {high}")
    return value


def flag(obj: Object, key: str, where: str) -> bool:
    """True or false."""
    value = obj.get(key)
    if not isinstance(value, bool):
        raise PolicyError(f"{where}{key} is {_shown(value)}; give true or false")
    return value


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:80]
