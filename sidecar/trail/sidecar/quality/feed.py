"""From the timelines of one engine's requests to what is judged of them."""

from collections.abc import Callable

import numpy as np

from trail.predict.quality import EndedRequest
from trail.sidecar.quality.arrival_order import ArrivalOrder
from trail.sidecar.quality.monitor import QualityMonitor
from trail.sidecar.requests.timeline import Moment, RequestTimeline
from trail.wire.changes import Change


class QualityFeed:
    """A `TimelineListener`: hands what ended to the monitor, in the order in which it arrived."""

    def __init__(self, monitor: QualityMonitor, is_open: Callable[[int], bool]) -> None:
        """`is_open` says whether a key is still being served."""
        self._monitor = monitor
        self._order: ArrivalOrder[EndedRequest] = ArrivalOrder(is_open)

    def moment(self, timeline: RequestTimeline, moment: Moment) -> None:
        """Takes arrivals and ends."""
        if moment.change in (Change.ARRIVED, Change.FOUND):
            self._order.arrive(timeline.key)
        elif moment.change == Change.ENDED:
            self._monitor.take(self._order.end(timeline.key, judged_of(timeline)))


def judged_of(timeline: RequestTimeline) -> EndedRequest | None:
    """What is to be judged of a request that ended; None where its length is not its own or nothing was
    predicted of it."""
    ending = timeline.ending
    if ending is None or not ending.whole:
        return None
    ages = ending.history.sampled_ages
    if not len(ages) or ages[-1] > ending.output_tokens:
        return None
    return EndedRequest(
        length=ending.output_tokens,
        ended=ending.finish_reason == "stop",
        limit=ending.limit,
        prompt_said=ending.prompt_said,
        ages=ages.astype(np.int64),
        posteriors=ending.history.posteriors,
    )
