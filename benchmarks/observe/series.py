"""What a sidecar reports, several times a second, as columns for plots."""

import threading
import time
from collections.abc import Callable

from trail.commands.top.source import SnapshotSource, ask_all

EVERY_S = 0.25
COLUMNS = (
    "at_s",
    "running",
    "waiting",
    "kv_usage",
    "running_tokens",
    "waiting_tokens",
    "policy_preemptions",
    "memory_preemptions",
)


class Sampler:
    """Asks `Observe.Snapshot` in a thread of its own from `start` to `stop`; engines are summed up."""

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`address` as `trail top` takes it."""
        self.columns: dict[str, list[float]] = {name: [] for name in COLUMNS}
        self._source = SnapshotSource(address, lives=0)
        self._clock = clock
        self._began_s = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trail-observe", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> dict[str, list[float]]:
        """End; what was seen, by column."""
        self._stop.set()
        self._thread.join(5.0)
        self._source.close()
        return self.columns

    def look(self) -> None:
        """Take one sample; none where the sidecar does not answer."""
        (reading,) = ask_all([self._source])
        if reading.snapshot is None or reading.trouble:
            return
        engines = reading.snapshot.engines
        backlogs = [engine.backlog for engine in engines]
        values = {
            "at_s": round(self._clock() - self._began_s, 3),
            "running": sum(b.running_requests for b in backlogs),
            "waiting": sum(b.waiting_requests for b in backlogs),
            "kv_usage": max((b.kv_usage for b in backlogs), default=0.0),
            "running_tokens": sum(b.running_tokens for b in backlogs),
            "waiting_tokens": sum(b.waiting_tokens for b in backlogs),
            "policy_preemptions": sum(e.policy_preemptions_total for e in engines),
            "memory_preemptions": sum(e.memory_preemptions_total for e in engines),
        }
        for name, column in self.columns.items():
            column.append(float(values[name]))

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.look()
