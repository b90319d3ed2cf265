"""How long the loop pauses after a round.

A rank gets older by the pause; where cores are scarce, one taken from vLLM costs more than that. Whether they
are shows in the rounds themselves: on a core of its own a round takes as long as its CPU time.
"""

REST = 39.0
"""Pause after a busy round, in lengths of the CPU time that round took, so that vLLM keeps its cores."""
LEAST_S = 0.5e-3
LIMIT_S = 0.1
"""Longest pause, where cores are scarce or nothing depends on new predictions."""
FREE_LIMIT_S = 30e-3
"""Longest pause after busy rounds that had a core of their own."""
IDLE_S = 5e-3
"""Longest pause between rounds without work, while somebody waits for predictions."""
_GROWTH = 1.3
_CROWDED = 0.3
"""Share of a round's time spent waiting for a core from which cores are taken to be scarce."""
_MEMORY = 0.95


class Rests:
    """Pauses of one loop, from what its rounds took."""

    def __init__(self) -> None:
        self._pause_s = LEAST_S
        self._waited = 0.0

    def after(self, busy: bool, cpu_s: float, wall_s: float) -> float:
        """Pause in seconds after a round that took `cpu_s` of CPU time and `wall_s` in all."""
        if not busy:
            self._pause_s = min(self._pause_s * _GROWTH, IDLE_S)
            return self._pause_s
        waited = max(1.0 - cpu_s / wall_s, 0.0) if wall_s > 0 else 0.0
        self._waited = _MEMORY * self._waited + (1 - _MEMORY) * waited
        crowding = min(self._waited / _CROWDED, 1.0)
        limit_s = FREE_LIMIT_S + crowding * (LIMIT_S - FREE_LIMIT_S)
        self._pause_s = min(max(REST * cpu_s, LEAST_S), limit_s)
        return self._pause_s
