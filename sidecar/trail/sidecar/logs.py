"""The sidecar's logger: one set-up, and a guard against the same line a thousand times a second."""

import logging
import sys
import time
from collections.abc import Callable

LOGGER_NAME = "trail.sidecar"


def set_up_logging(level: int = logging.INFO) -> None:
    """Sends the sidecar's lines to standard error; called once, by the command."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s trail sidecar: %(message)s"))
    logger = logging.getLogger(LOGGER_NAME)
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def get_logger() -> logging.Logger:
    """The sidecar's logger."""
    return logging.getLogger(LOGGER_NAME)


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
