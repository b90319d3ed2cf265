"""What the operator's probes answer by: the parts that it cannot work without, and since when each is away.

Ready means that it hears of the cluster and can read its lease: only then does what it says of a pod fit the
policies as they are. Alive means that a restart would mend nothing. An API server that is away makes it
unready for that time and never has it restarted.
"""

import threading
import time
from collections.abc import Callable

READY_WITHIN_S = 120.0
"""A part may be away for so long before the operator counts as not ready. Nothing changes while an API server
is away, and a webhook that is left out when it comes back would miss the pods that are made then."""
ALIVE_WITHIN_S = 300.0
"""A part that has not even tried for so long hangs."""


class Part:
    """One part. Its owner says when it works, when it fails, and that it tries; from any thread."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        """`clock` is monotonic seconds. A part is away until it first works."""
        self.name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._worked_s: float | None = None
        self._tried_s: float | None = None
        self._why = "has not begun"

    def works(self) -> None:
        """It has just done what it is for."""
        with self._lock:
            self._worked_s = self._tried_s = self._clock()
            self._why = ""

    def fails(self, why: str) -> None:
        """It has tried and could not; `why` is a sentence."""
        with self._lock:
            self._tried_s = self._clock()
            self._why = why

    def tries(self) -> None:
        """It goes on, without a result yet."""
        with self._lock:
            self._tried_s = self._clock()

    @property
    def ready(self) -> bool:
        """Whether it has worked a short while ago."""
        with self._lock:
            return self._worked_s is not None and self._clock() - self._worked_s <= READY_WITHIN_S

    @property
    def alive(self) -> bool:
        """Whether it goes on trying, once it has begun."""
        with self._lock:
            return self._tried_s is None or self._clock() - self._tried_s <= ALIVE_WITHIN_S

    def describe(self) -> str:
        """A line for people."""
        good = self.ready and self.alive
        with self._lock:
            if self._worked_s is None:
                since = "has never worked"
            else:
                since = f"worked {self._clock() - self._worked_s:.0f} s ago"
            why = f": {self._why}" if self._why else ""
        return f"[{'+' if good else '-'}] {self.name} {since}{why}"


class Health:
    """All parts of one operator."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic seconds."""
        self.cluster = Part("cluster", clock)
        """The first look at everything, until it is had."""
        self.watches = Part("watches", clock)
        self.lease = Part("lease", clock)
        self._seen = False

    def looked(self) -> None:
        """Everything has been looked at once."""
        self._seen = True

    def ready(self) -> tuple[bool, str]:
        """Whether pods should be decided on here, and a line for each part."""
        parts = (self.watches, self.lease)
        shown = parts if self._seen else (self.cluster, *parts)
        lines = "\n".join(part.describe() for part in shown)
        return self._seen and all(part.ready for part in parts), f"{lines}\n"

    def alive(self) -> tuple[bool, str]:
        """Whether everything that has begun goes on trying, and a line for each part that is asked.

        The first look is tried until it is had; what comes after begins then.
        """
        parts = (self.watches, self.lease) if self._seen else (self.cluster,)
        return all(part.alive for part in parts), "\n".join(part.describe() for part in parts) + "\n"
