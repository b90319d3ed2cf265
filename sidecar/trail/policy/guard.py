"""The guard of the tail: how long a request can be passed over by shorter ones that come after it.

Ranks are *boosted arrivals*: a request of w tokens that arrived at t is ranked, smallest first, by

    t + T ln(1 - exp(-w / R)),    T = kappa W

with W how long the queue is, in seconds, and R the mean size in tokens. The boost of a long request is
nearly 0 and grows, without haste, the shorter a request is. The form is that of gamma-boost (Yu and Scully,
"Strongly tail-optimal scheduling in the light-tailed M/G/1", 2024), where T and R are one constant of the
load; here T follows the queue, because what a second of waiting is worth depends on how long everybody waits.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_TOKENS = 1.0
"""Nobody counts as shorter, which is what makes the boost finite."""
LONGEST_S = 2.0**18
"""T at most, three days: by then the order is by size, and ranks keep within a bounded distance."""


def boost_scale(mean_size: float) -> float:
    """R in tokens for a mean size of requests: at least one token."""
    return max(mean_size, LEAST_TOKENS)


def boosted_arrival(
    size: ArrayLike, arrival_s: ArrayLike, wait_s: float, kappa: float, scale: float
) -> NDArray[np.float64]:
    """Ranks `[n]` in seconds of requests of `size` tokens `[n]` that arrived at `arrival_s` `[n]`.

    `wait_s` is W, `kappa` finite, `scale` R in tokens. kappa or W of 0 leave the arrivals as they are.
    """
    w = np.maximum(np.asarray(size, np.float64), LEAST_TOKENS)
    ranks: NDArray[np.float64] = arrival_s + _spread_s(kappa, wait_s) * np.log(-np.expm1(-w / scale))
    return ranks


def overtake_bound(kappa: float, wait_s: float, scale: float) -> float:
    """Seconds after which nobody who arrives is served before a request that waits: the largest boost.

    T ln(1 / (1 - exp(-1 / R))), for the W in force while it waits; infinite where `kappa` is.
    """
    if math.isinf(kappa):
        return math.inf
    return -_spread_s(kappa, wait_s) * math.log(-math.expm1(-LEAST_TOKENS / scale))


def _spread_s(kappa: float, wait_s: float) -> float:
    return min(kappa * wait_s, LONGEST_S)


@dataclass
class Guard:
    """Estimates W, how long the queue is in seconds, from observations; it has no clock of its own.

    W = queued predicted tokens / recent tokens a second. The rate is measured since requests began to wait,
    over the last `recent_s` or so: with a queue the engine runs full, without one its rate says nothing of
    what it could do. A queue counts once it has stood for `settle_s`. W is held at its peak, which decays
    with the time constant `hold_s`: in a burst's tail those at the end of the queue have waited longest.
    """

    hold_s: float = 60.0
    recent_s: float = 10.0
    settle_s: float = 1.0
    wait_s: float = 0.0
    """The present estimate, W."""
    _now_s: float | None = None
    _generated: float = 0.0
    _queued: bool = False
    _stood_s: float = 0.0
    _tokens: float = 0.0
    _seconds: float = 0.0

    def observe(self, now_s: float, queued_tokens: float, generated_tokens: float) -> float:
        """W after what is seen at `now_s` (seconds of any clock that does not go back).

        `queued_tokens` is what is predicted of all waiting requests, `generated_tokens` a total that only
        grows, unless counting began anew.
        """
        passed_s = max(now_s - self._now_s, 0.0) if self._now_s is not None else 0.0
        made = generated_tokens - self._generated
        self._now_s, self._generated = now_s, generated_tokens
        self.wait_s *= math.exp(-passed_s / self.hold_s)
        if queued_tokens <= 0 or not self._queued or made < 0:
            self._stood_s = self._tokens = self._seconds = 0.0
        else:
            self._stood_s += passed_s
            kept = math.exp(-passed_s / self.recent_s)
            self._tokens = self._tokens * kept + made
            self._seconds = self._seconds * kept + passed_s
        self._queued = queued_tokens > 0
        if self._queued and self._stood_s >= self.settle_s and self._tokens > 0:
            self.wait_s = max(self.wait_s, queued_tokens * self._seconds / self._tokens)
        return self.wait_s
