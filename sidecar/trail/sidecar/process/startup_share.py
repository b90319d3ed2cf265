"""A small share of a contended core for a sidecar that starts while vLLM serves.

Its start is seconds of computing: torch and transformers are imported, a predictor is loaded. vLLM's steps
would take their turns with it. So it is stopped and let go on in turn, by signals, for as long as no core is
free, until it says that it is up. Nobody waits for it meanwhile: vLLM serves first come, first served.
"""

import os
import signal
from collections.abc import Callable
from enum import Enum

from trail.sidecar.process.cores import cpu_seconds, idle_seconds

SHARE = 0.1
"""Part of the time that it runs where cores are contended."""
TURN_S = 50e-3
"""One run and one stop together: short enough for the sidecar's heartbeat, once it has one."""
WINDOW_S = 0.25
"""Time over which it is judged whether a core is free."""
FREE_FROM, CONTENDED_BELOW = 0.9, 0.75
"""Cores that are idle or its own: from so many on it runs freely, below so few in turns."""
LONGEST_S = 180.0
"""A sidecar that does not say that it is up by then is left alone."""


class Contention:
    """Whether a process would be in somebody's way, from what was idle and what it used itself."""

    def __init__(self, idle_s: float | None, own_s: float, now_s: float, *, contended: bool = False) -> None:
        """Totals so far, in seconds; `contended` is what held before."""
        self._before = (idle_s, own_s, now_s)
        self.contended = contended

    def due(self, now_s: float) -> bool:
        """Whether a window has passed since the last look."""
        return now_s - self._before[2] >= WINDOW_S

    def look(self, idle_s: float | None, own_s: float, now_s: float) -> bool:
        """Judges anew. Where idle time cannot be seen nothing is contended: no start is held up by that."""
        began_idle_s, began_own_s, began_s = self._before
        self._before = (idle_s, own_s, now_s)
        if idle_s is None or began_idle_s is None:
            self.contended = False
        else:
            cores = (idle_s - began_idle_s + own_s - began_own_s) / (now_s - began_s)
            self.contended = cores < (FREE_FROM if self.contended else CONTENDED_BELOW)
        return self.contended


class Start(Enum):
    """How far a sidecar's start is."""

    GOES_ON = "goes on"
    UP = "is up"
    GONE = "has ended"
    LATE = "has not come up"


class StartupShare:
    """Runs a child in turns while it starts. `turn` waits as long as the next pause of the caller."""

    def __init__(self, pid: int, ready_fd: int, clock: Callable[[], float], contended: bool) -> None:
        """`ready_fd` becomes readable when the child is up or gone; `contended` held before its start."""
        self._pid = pid
        self._ready_fd = ready_fd
        self._clock = clock
        self._began_s = clock()
        self._in_turns_s = 0.0
        self._watch = Contention(idle_seconds(), 0.0, clock(), contended=contended)
        os.set_blocking(ready_fd, False)

    def look(self) -> Start:
        """How it stands."""
        try:
            return Start.UP if os.read(self._ready_fd, 1) else Start.GONE
        except BlockingIOError:
            return Start.LATE if self._clock() - self._began_s > LONGEST_S else Start.GOES_ON

    def describe(self) -> str:
        """How long the start has taken, for the log."""
        passed_s = self._clock() - self._began_s
        return f"{passed_s:.1f} s after its start, {self._in_turns_s:.1f} s of it in turns"

    def turn(self, wait: Callable[[float], bool]) -> bool:
        """One run, and one stop where cores are contended; `wait` takes seconds and says whether to end."""
        try:
            if self._watch.due(now_s := self._clock()):
                self._watch.look(idle_seconds(), cpu_seconds(self._pid), now_s)
        except OSError:  # it is gone
            return wait(TURN_S)
        if not self._watch.contended:
            return wait(TURN_S)
        self._in_turns_s += TURN_S
        if wait(SHARE * TURN_S):
            return True
        os.kill(self._pid, signal.SIGSTOP)
        try:
            return wait((1.0 - SHARE) * TURN_S)
        finally:
            os.kill(self._pid, signal.SIGCONT)
