"""Decisions on their way from the loop to whoever watches, each with a bounded queue."""

import queue
import threading
from typing import NamedTuple

from trail.sidecar.requests.timeline import Moment, RequestTimeline
from trail.wire.changes import Change

WATCHERS = 4
"""Watchers at a time: each keeps a thread of the server."""
QUEUE_SIZE = 4096


class Seen(NamedTuple):
    """A moment of a request, and how many a watcher had missed by then."""

    timeline: RequestTimeline
    moment: Moment
    missed: int


class Subscription:
    """One watcher's queue. The loop drops what does not fit, and counts it."""

    def __init__(self, ends_only: bool) -> None:
        self.missed = 0
        self._ends_only = ends_only
        self._queue: queue.Queue[Seen] = queue.Queue(QUEUE_SIZE)

    def offer(self, timeline: RequestTimeline, moment: Moment) -> None:
        """Called by the loop; never waits."""
        if self._ends_only and moment.change != Change.ENDED:
            return
        try:
            self._queue.put_nowait(Seen(timeline, moment, self.missed))
        except queue.Full:
            self.missed += 1

    def take(self, timeout_s: float) -> Seen | None:
        """The next one; None when none came within `timeout_s`."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None


class WatchHub:
    """A `TimelineListener` that hands on to its subscriptions."""

    def __init__(self) -> None:
        self._subscriptions: tuple[Subscription, ...] = ()
        self._lock = threading.Lock()

    def moment(self, timeline: RequestTimeline, moment: Moment) -> None:
        """Called by the loop."""
        for subscription in self._subscriptions:
            subscription.offer(timeline, moment)

    def subscribe(self, ends_only: bool = False) -> Subscription | None:
        """A subscription from now on; None when there are `WATCHERS` already."""
        with self._lock:
            if len(self._subscriptions) >= WATCHERS:
                return None
            subscription = Subscription(ends_only)
            self._subscriptions = (*self._subscriptions, subscription)
            return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)
