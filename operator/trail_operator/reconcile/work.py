"""A queue of keys to look at: each once at a time, failures again and later."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from trail.wire.backoff import Backoff
from trail_operator.cluster_api.kube import KubeError
from trail_operator.metrics import Metrics

RETRIES = Backoff(first_s=0.5, longest_s=60.0)
_FORBIDDEN_S, _CONFLICT_S = 60.0, 0.1

log = logging.getLogger("trail.operator")

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys with the time they are due. Adding one that waits only moves it forward."""

    def __init__(
        self,
        handle: Callable[[K], Awaitable[None]],
        metrics: Metrics,
        *,
        workers: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._handle = handle
        self._metrics = metrics
        self._workers = workers
        self._clock = clock
        self._due: dict[K, float] = {}
        self._busy: set[K] = set()
        self._pauses: dict[K, float] = {}
        self._wake = asyncio.Event()

    def add(self, key: K, delay_s: float = 0.0) -> None:
        """Has `key` looked at in `delay_s`, or sooner where it waits already."""
        due = self._clock() + delay_s
        self._due[key] = min(due, self._due.get(key, due))
        self._metrics.queue.set(len(self._due))
        self._wake.set()

    def clear(self) -> None:
        """Forgets what waits."""
        self._due.clear()
        self._pauses.clear()
        self._metrics.queue.set(0)

    @property
    def idle(self) -> bool:
        """Whether nothing is due or under way."""
        now = self._clock()
        return not self._busy and not any(due <= now for due in self._due.values())

    async def run(self) -> None:
        """Works for ever."""
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._wake.clear()
                now = self._clock()
                ready = sorted((due, i, k) for i, (k, due) in enumerate(self._due.items()) if due <= now)
                for _, _, key in ready:
                    if len(running) >= self._workers:
                        break
                    if key not in self._busy:
                        del self._due[key]
                        self._busy.add(key)
                        task = asyncio.create_task(self._one(key))
                        running.add(task)
                        task.add_done_callback(running.discard)
                self._metrics.queue.set(len(self._due))
                await self._pause(running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _pause(self, running: set[asyncio.Task[None]]) -> None:
        waiting = [due for key, due in self._due.items() if key not in self._busy]
        free = len(running) < self._workers
        timeout = max(min(waiting) - self._clock(), 0.0) if waiting and free else None
        wake = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({wake, *running}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wake.cancel()

    async def _one(self, key: K) -> None:
        try:
            await self._handle(key)
            self._pauses.pop(key, None)
        except KubeError as error:
            self._again(key, error, str(error.status), _pause_of(error))
        except (OSError, TimeoutError) as error:
            self._again(key, error, "unreachable", None)
        except Exception as error:
            log.exception("%s: this is a mistake of the operator", key)
            self._again(key, error, "internal", None)
        finally:
            self._busy.discard(key)

    def _again(self, key: K, error: Exception, cause: str, pause_s: float | None) -> None:
        self._metrics.failures.labels(part="reconcile", cause=cause).inc()
        if cause == "404":  # gone; its watch says so, too
            self._pauses.pop(key, None)
            return
        longer_s = self._pauses[key] = RETRIES.after(self._pauses.get(key, 0.0))
        pause = longer_s if pause_s is None else pause_s
        if cause != "409":
            log.warning("%s: %s; again in %.1f s", key, error, pause)
        self.add(key, pause)


def _pause_of(error: KubeError) -> float | None:
    if error.status == 409:
        return _CONFLICT_S
    return _FORBIDDEN_S if error.status in (401, 403) else None
