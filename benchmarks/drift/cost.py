"""What the judging takes from the sidecar's loop, in CPU time of one thread."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.drift.answers import Answers
from trail.policy.spec import PolicySpec
from trail.predict.quality import EndedRequest, Quality
from trail.sidecar.history.timelines import Timelines
from trail.sidecar.quality.feed import QualityFeed
from trail.sidecar.quality.monitor import QualityMonitor
from trail.sidecar.requests.tracker import RequestTracker, RunningMean
from trail.wire.lifecycle import Finished, Started

_OPEN = 64
_REPEATS = 200
_PREDICTIONS = 100


def costs(answers: Answers, lives: Sequence[EndedRequest]) -> dict[str, float]:
    """Medians in microseconds of CPU time.

    `loop_us_per_finished`: what the loop does for it at an end. `loop_us_per_batch`: keeping a batch
    of 64 predictions, the mean over 100 of each request. `thread_us_per_finished`: judging and fitting in the
    thread beside it.
    """
    quality = Quality(answers.manifest)
    tracker = RequestTracker(_OPEN, answers.bins.k, RunningMean())
    timelines = Timelines(0, tracker, time.monotonic_ns)
    feed = QualityFeed(QualityMonitor(quality), lambda _key: False)
    slots = np.arange(_OPEN)
    for slot in range(_OPEN):
        timelines.start(Started(key=slot + 1, request_id=str(slot), slot=slot, prompt_token_ids=(1, 2)))
    posteriors = np.full((_OPEN, answers.bins.k), 1.0 / answers.bins.k)

    def predict() -> None:
        for slot in range(_OPEN):
            tracker.history.begin(slot)
        for made in range(_PREDICTIONS):
            at = np.full(_OPEN, made)
            tracker.history.take(slots, at, at, at + 9.0, posteriors)

    batch_us = _median_us(predict, 20) / _PREDICTIONS
    tracker.predictions[:] = _PREDICTIONS
    for slot in range(_OPEN):
        timelines.end(Finished(key=slot + 1, slot=slot, output_tokens=_PREDICTIONS), PolicySpec(), 1)

    def finish() -> None:
        for timeline in timelines.ended:
            tracker.history.of(timeline.slot, _PREDICTIONS)
            feed.moment(timeline, timeline.moments[-1])

    finished_us = _median_us(finish, _REPEATS) / _OPEN
    began_s = time.thread_time()
    for first in range(0, len(lives), _OPEN):
        quality.take(lives[first : first + _OPEN])
    judged_us = 1e6 * (time.thread_time() - began_s) / len(lives)
    return {
        "loop_us_per_finished": finished_us,
        "loop_us_per_batch": batch_us,
        "thread_us_per_finished": judged_us,
    }


def _median_us(work: Callable[[], None], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        began_s = time.thread_time()
        work()
        taken.append(time.thread_time() - began_s)
    return 1e6 * float(np.median(taken))
