"""Scheduling policies by name, with their parameters."""

import math
import re
from dataclasses import dataclass

POLICY_NAMES = ("fcfs", "sjf", "trail-prompt", "trail", "oracle")

_PREEMPTING = frozenset({"trail-prompt", "trail", "oracle"})
_WITH_C = re.compile(r"^(?P<name>.+?)-c(?P<c>[0-9.]+)$")


@dataclass(frozen=True)
class PolicySpec:
    """One policy: which order, how far preemption is allowed, and the KV reserve.

    `c` bounds preemption: a request is protected from age `floor(c * initial prediction)` on (TRAIL,
    section 4). `kv_reserve_tokens` holds back KV cache for every running request when another is
    admitted; negative means no limit.

    Raises ValueError when the name is unknown or a parameter is out of range.
    """

    name: str = "trail"
    c: float = 0.8
    kv_reserve_tokens: float = -1.0

    def __post_init__(self) -> None:
        if self.name not in POLICY_NAMES:
            known = ", ".join(POLICY_NAMES)
            raise ValueError(f"unknown policy {self.name!r}; choose one of {known}")
        if not (math.isfinite(self.c) and 0.0 <= self.c <= 1.0):
            raise ValueError(f"c is {self.c!r}; it must lie in [0, 1] (0: a request that runs is protected)")
        if not math.isfinite(self.kv_reserve_tokens):
            raise ValueError(
                f"kv_reserve_tokens is {self.kv_reserve_tokens!r}; give a number of tokens a running "
                "request, or a negative number for no limit"
            )

    @property
    def orders(self) -> bool:
        """Whether requests are served in another order than that of their arrival."""
        return self.name != "fcfs"

    @property
    def preempts(self) -> bool:
        """Whether a running request may be preempted for a shorter one."""
        return self.name in _PREEMPTING


def parse_policy(text: str) -> PolicySpec:
    """The policy that a short name stands for: `trail`, `trail-c0.2`, `oracle-c0`, `fcfs`.

    Raises ValueError naming the part that is wrong.
    """
    name, c = text.strip(), None
    if name not in POLICY_NAMES and (match := _WITH_C.match(name)):
        name = match["name"]
        try:
            c = float(match["c"])
        except ValueError:
            raise ValueError(
                f"policy {text!r}: {match['c']!r} is no number; write c as in trail-c0.2"
            ) from None
    if c is None:
        return PolicySpec(name=name)
    if name in POLICY_NAMES and name not in _PREEMPTING:
        raise ValueError(f"policy {text!r}: {name} never preempts, so it takes no c; write {name}")
    return PolicySpec(name=name, c=c)
