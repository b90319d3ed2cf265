"""Lines that are logged once and not a thousand times a second. Standard library only."""

import logging


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
