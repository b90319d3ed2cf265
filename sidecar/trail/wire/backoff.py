"""How long to wait before what failed is tried again. Standard library only."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Pauses in seconds: `first_s`, then each `factor` times the one before, up to `longest_s`.

    What lived for `healthy_s` before it failed begins anew.
    """

    first_s: float
    longest_s: float
    factor: float = 2.0
    healthy_s: float = math.inf

    def after(self, pause_s: float = 0.0, lived_s: float = 0.0) -> float:
        """The pause after a failure that came `lived_s` after a pause of `pause_s` (0: none yet)."""
        longer_s = self.factor * pause_s if lived_s < self.healthy_s else 0.0
        return min(max(longer_s, self.first_s), self.longest_s)
