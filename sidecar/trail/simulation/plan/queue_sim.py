"""Discrete-event simulation of the queue of `mg1`, one request at a time, exactly by its rules."""

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Requests:
    """What arrives: ascending arrival times, sizes and predictions, float64 [n] each, in one unit of time."""

    arrival: Floats
    size: Floats
    prediction: Floats


def response_times(requests: Requests, c: float) -> Floats:
    """From arrival to end of every request, float64 [n], on one server of rate 1 that is never idle while
    somebody waits: shortest predicted remaining first with limited preemption, preempted work kept.

    The rules are those of `trail.policy.decide` for one slot, applied when something happens instead of at
    every token: a waiting request's rank stands still, so that the waiting ones lie in a heap. O(n log n).
    """
    arrival = [*requests.arrival.tolist(), float("inf")]
    size, prediction = requests.size.tolist(), requests.prediction.tolist()
    n = len(size)
    left, end = list(size), [0.0] * n
    waiting: list[tuple[float, int]] = []
    now, i = 0.0, 0
    while i < n or waiting:
        if not waiting:
            now = max(now, arrival[i])
        while arrival[i] <= now:
            heappush(waiting, (prediction[i], i))
            i += 1
        rank, running = heappop(waiting)
        preemptible_s = c * prediction[running] - (size[running] - left[running])
        ends = now + left[running]
        while (time := arrival[i]) < ends:
            served, predicted = time - now, prediction[i]
            if served < preemptible_s and predicted < rank - served:
                left[running] = ends - time
                heappush(waiting, (rank - served, running))
                running, rank, now = i, predicted, time
                preemptible_s, ends = c * predicted, time + size[i]
            else:
                heappush(waiting, (predicted, i))
            i += 1
        end[running] = now = ends
    return np.asarray(end, dtype=np.float64) - requests.arrival


def fcfs_response_times(requests: Requests) -> Floats:
    """The same under first come first served, float64 [n] (Lindley's recursion as a running maximum)."""
    done = np.cumsum(requests.size)
    idle = np.maximum.accumulate(requests.arrival - (done - requests.size))
    return np.asarray(done + idle - requests.arrival, dtype=np.float64)
