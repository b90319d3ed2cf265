"""Lines that are logged once and not a thousand times a second. Standard library only."""

import logging
import time
from collections.abc import Callable


class OnChange:
    """Logs a line unless it is the one that it was given last. For one thread."""

    def __init__(self, log: logging.Logger, level: int = logging.WARNING) -> None:
        self._log = log
        self._level = level
        self._last = ""

    def __call__(self, line: str, level: int | None = None) -> None:
        """Logs `line` at `level` where it says something else than before; an empty one only lets the next be
        logged whatever it says."""
        if line != self._last:
            self._last = line
            if line:
                self._log.log(self._level if level is None else level, "%s", line)


class RateLimited:
    """Lets one line a `cause` through per `interval_s` and counts the ones it holds back."""

    def __init__(self, interval_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def admit(self, cause: str) -> int | None:
        """Number of lines held back since the last admitted one, or None when this one is held back."""
        now_s = self._clock()
        last_s, held = self._seen.get(cause, (-float("inf"), 0))
        if now_s - last_s < self._interval_s:
            self._seen[cause] = (last_s, held + 1)
            return None
        self._seen[cause] = (now_s, 0)
        return held
