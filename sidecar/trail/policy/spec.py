"""Scheduling policies by name, with their parameters."""

import math
import re
from dataclasses import dataclass
from typing import Any

POLICY_NAMES = ("fcfs", "sjf", "trail-prompt", "trail", "oracle", "mlfq", "adaptive")
SIZES = ("point", "gittins")

_WITH_CUTOFF = frozenset({"trail-prompt", "trail", "oracle", "adaptive"})
_PREEMPTING = _WITH_CUTOFF | {"mlfq"}
_WITH_DISTRIBUTION = frozenset({"trail", "adaptive"})

_OWN: Any = object()
"""In place of a parameter that is not given: the policy's own default."""
_PLAIN = {
    "c": 0.8,
    "kv_reserve_tokens": -1.0,
    "kappa": 1.0,
    "preempt_ratio": 1.0,
    "max_preemptions": -1,
    "size": "point",
}
_DEFAULTS = {
    "adaptive": {**_PLAIN, "c": 0.0, "kv_reserve_tokens": 16.0, "preempt_ratio": 2.0, "max_preemptions": 1}
}

_NAME = re.compile(rf"^({'|'.join(sorted(POLICY_NAMES, key=len, reverse=True))})(-.*)?$")
_PART = re.compile(r"^(?:(c|k|ratio)([0-9.]+|inf)|(limit|reserve)([0-9.]+|off)|(gittins)|(shadow))$")
_FIELD_OF = {
    "c": "c",
    "k": "kappa",
    "ratio": "preempt_ratio",
    "limit": "max_preemptions",
    "reserve": "kv_reserve_tokens",
}
_EXAMPLE = {"c": "0.2", "k": "2", "ratio": "2", "limit": "1", "reserve": "16"}


@dataclass(frozen=True)
class PolicySpec:
    """One policy: which order, how far preemption is allowed, and the KV reserve.

    A parameter that is not given has the policy's own default.

    - `c` bounds preemption: a request is protected from age `floor(c * initial prediction)` on (TRAIL,
      section 4). For the policies that predict: trail-prompt, trail, oracle, adaptive.
    - `kv_reserve_tokens` holds back KV cache for every running request when another is admitted; negative
      means no limit.
    - `kappa`, of adaptive, runs from 0, first come first served, to infinity, pure size order.
    - `preempt_ratio`: a running request gives way only where its remaining size is at least so many times
      the newcomer's.
    - `max_preemptions`: how often one request is preempted for another, at most; negative means no limit.
    - `size`: what stands for a predicted distribution, its `point` or its `gittins` index. Where there is a
      distribution: trail, adaptive.
    - `shadow`: requests are predicted and ranked, and the engine keeps its own order all the same.

    Raises ValueError when the name is unknown or a parameter is out of range.
    """

    name: str = "trail"
    c: float = _OWN
    kv_reserve_tokens: float = _OWN
    kappa: float = _OWN
    preempt_ratio: float = _OWN
    max_preemptions: int = _OWN
    size: str = _OWN
    shadow: bool = False

    def __post_init__(self) -> None:
        if self.name not in POLICY_NAMES:
            known = ", ".join(POLICY_NAMES)
            raise ValueError(f"unknown policy {self.name!r}; choose one of {known}")
        for parameter, default in _DEFAULTS.get(self.name, _PLAIN).items():
            if getattr(self, parameter) is _OWN:
                object.__setattr__(self, parameter, default)
        if not (math.isfinite(self.c) and 0.0 <= self.c <= 1.0):
            raise ValueError(f"c is {self.c!r}; it must lie in [0, 1] (0: a request that runs is protected)")
        if not math.isfinite(self.kv_reserve_tokens):
            raise ValueError(
                f"kv_reserve_tokens is {self.kv_reserve_tokens!r}; give a number of tokens a running "
                "request, or a negative number for no limit"
            )
        if not self.kappa >= 0.0:
            raise ValueError(f"kappa is {self.kappa!r}; give 0 (first come, first served) to inf (by size)")
        if not 1.0 <= self.preempt_ratio < math.inf:
            raise ValueError(
                f"preempt_ratio is {self.preempt_ratio!r}; give a finite number of at least 1 (1: no gate)"
            )
        if not -(2**31) <= self.max_preemptions < 2**31:
            raise ValueError(
                f"max_preemptions is {self.max_preemptions!r}; give a number of preemptions a request, or a "
                "negative number for no limit"
            )
        if self.size not in SIZES:
            raise ValueError(f"size is {self.size!r}; choose one of {', '.join(SIZES)}")
        if self.size == "gittins" and self.name not in _WITH_DISTRIBUTION:
            raise ValueError(
                f"policy {self.name} ranks by no predicted distribution, so its size cannot be gittins; "
                f"{' and '.join(sorted(_WITH_DISTRIBUTION))} do"
            )

    @property
    def orders(self) -> bool:
        """Whether requests are served in another order than that of their arrival."""
        return self.name != "fcfs" and not self.shadow

    @property
    def boosts(self) -> bool:
        """Whether ranks are boosted arrivals, in seconds, and not sizes."""
        return self.name == "adaptive"

    @property
    def cuts_off(self) -> bool:
        """Whether `c` means anything: requests have a cut-off age."""
        return self.name in _WITH_CUTOFF

    @property
    def preempts(self) -> bool:
        """Whether a running request may be preempted for one that comes before it."""
        return self._may_preempt and not self.shadow

    @property
    def gives_way(self) -> bool:
        """Whether a running request is ever preempted for another, in shadow as if it were: with a cut-off at
        c = 0 each is protected from its first token on."""
        return self._may_preempt and not (self.cuts_off and self.c == 0.0)

    @property
    def _may_preempt(self) -> bool:
        return self.name in _PREEMPTING and not (self.boosts and self.kappa == 0.0)

    @property
    def text(self) -> str:
        """The shortest text that `parse_policy` reads as this policy; `c` is always named where it counts."""
        default = PolicySpec(self.name)
        parts = [self.name]
        if self.cuts_off and (self.c != default.c or not self.boosts):
            parts.append(f"c{self.c:g}")
        if self.kappa != default.kappa:
            parts.append(f"k{self.kappa:g}")
        if self.preempt_ratio != default.preempt_ratio:
            parts.append(f"ratio{self.preempt_ratio:g}")
        for name, value, usual in (
            ("limit", self.max_preemptions, default.max_preemptions),
            ("reserve", self.kv_reserve_tokens, default.kv_reserve_tokens),
        ):
            if max(value, -1) != usual:
                parts.append(f"{name}off" if value < 0 else f"{name}{value:g}")
        if self.size != default.size:
            parts.append(self.size)
        if self.shadow:
            parts.append("shadow")
        return "-".join(parts)


def parse_policy(text: str) -> PolicySpec:
    """The policy that NAME[-cC][-kKAPPA][-ratioR][-limitN][-reserveTOKENS][-gittins][-shadow]
    stands for.

    For example `trail`, `trail-c0.2`, `fcfs-reserve16`, `adaptive-k2`, `adaptive-kinf`,
    `adaptive-limitoff-reserveoff`. What is not named has the policy's default. Raises ValueError naming the
    part that is wrong.
    """
    match = _NAME.match(text.strip())
    if match is None:
        raise ValueError(f"unknown policy {text!r}; choose one of {', '.join(POLICY_NAMES)}")
    name, given = match[1], dict[str, Any]()
    for part in (match[2] or "").split("-")[1:]:
        field, value = _parameter(text, name, part)
        if field in given:
            raise ValueError(f"policy {text!r} names {field} twice; name it once")
        given[field] = value
    return PolicySpec(name=name, **given)


def _parameter(text: str, name: str, part: str) -> tuple[str, float | str | bool]:
    """Field and value that one part of a policy's text stands for."""
    match = _PART.match(part)
    if match is None:
        raise ValueError(
            f"unknown policy {text!r}: {part!r} is none of cC, kKAPPA, ratioR, limitN, reserveTOKENS, "
            "gittins, shadow"
        )
    if match[5]:
        return "size", "gittins"
    if match[6]:
        return "shadow", True
    key, value = match[1] or match[3], match[2] or match[4]
    takes = {
        "c": name in _WITH_CUTOFF,
        "k": name == "adaptive",
        "ratio": name in _PREEMPTING,
        "limit": name in _PREEMPTING,
        "reserve": True,
    }
    if not takes[key]:
        why = {"c": "has no cut-off age", "k": "has no boost"}.get(key, "never preempts")
        raise ValueError(f"policy {text!r}: {name} {why}, so it takes no {key}; write {name}")
    if value == "off":
        value = "-1"
    try:
        return _FIELD_OF[key], int(value) if key == "limit" else float(value)
    except ValueError:
        raise ValueError(
            f"policy {text!r}: {value!r} is no number; write {key} as in {name}-{key}{_EXAMPLE[key]}"
        ) from None
