"""Whether one predictor does worse than another: a sequential test on finished requests.

A finished request gives one number, the *advantage* of predictor a over predictor b: with e_a and e_b their
mean absolute errors along its life, x = (e_b - e_a) / (e_a + e_b), which lies in [-1, 1] and weighs a short
request as much as a long one.

`Evidence` grows while x is negative. Under the hypothesis that, whatever came before, the next x is at least
0 in the mean (a is no worse than b), each factor 1 - lambda x below has mean at most 1, for any lambda in
[0, 1]. The recursion

    M <- max(M, 1) (1 - lambda x)

lies below the Shiryaev-Roberts recursion R <- (R + 1) (1 - lambda x), for which R - t is a supermartingale,
and so does a mean over several lambdas. Hence, with a threshold h (Shin, Ramdas and Rinaldo, "E-detectors",
2022): a false alarm comes after at least h requests in the mean, and within t requests with a probability of
at most t / h. That holds where a is exactly as good as b, and for any distribution of errors; where a is
better, false alarms are rarer by far.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

STAKES = (0.1, 0.3, 0.6, 0.9)
"""The lambdas: small ones find a small disadvantage, large ones a great one soon."""
ALARM = 1e6
"""Evidence that switches a predictor off."""
RETURN = 1e4
"""Evidence of the opposite that switches it on again."""


def advantage(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Advantage of errors `a` [n] over errors `b` [n], float64 [n]: positive where a errs less."""
    mine, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    total = mine + other
    result: npt.NDArray[np.float64] = np.divide(
        other - mine, total, out=np.zeros_like(total), where=total > 0
    )
    return result


class Evidence:
    """Evidence that the mean of what is added is negative, as an e-detector. 0 to begin with."""

    def __init__(self, stakes: Sequence[float] = STAKES) -> None:
        self._stakes = tuple(stakes)
        self._held = [0.0] * len(self._stakes)

    @property
    def value(self) -> float:
        """The evidence so far."""
        return sum(self._held) / len(self._held)

    def add(self, x: float) -> None:
        """Takes one number in [-1, 1]. Raises ValueError for another, NaN among them."""
        if not -1.0 <= x <= 1.0:
            raise ValueError(f"an advantage lies in [-1, 1], got {x}")
        # The cap keeps evidence that nobody acts on from overflowing.
        self._held = [
            min(max(held, 1.0) * (1.0 - stake * x), 1e100)
            for held, stake in zip(self._held, self._stakes, strict=True)
        ]


class Judge:
    """Trusts a predictor until there is evidence against it, and again after evidence for it."""

    def __init__(self, alarm: float = ALARM, back: float = RETURN) -> None:
        self.trusted = True
        self.switches = 0
        self._alarm, self._back = alarm, back
        self._against = Evidence()
        self._for = Evidence()

    @property
    def evidence(self) -> float:
        """For the next switch, as a share of what it takes in logarithms: 0 none, 1 enough."""
        held, enough = (self._against, self._alarm) if self.trusted else (self._for, self._back)
        return float(np.log(max(held.value, 1.0)) / np.log(enough))

    def add(self, x: float) -> bool:
        """Takes the predictor's advantage in one request; True where the verdict changes.

        Each verdict starts from no evidence for the opposite, so that turning back takes as much again.
        """
        if self.trusted:
            self._against.add(x)
            changed = self._against.value >= self._alarm
        else:
            self._for.add(-x)
            changed = self._for.value >= self._back
        if changed:
            self.trusted = not self.trusted
            self.switches += 1
            self._against, self._for = Evidence(), Evidence()
        return changed
