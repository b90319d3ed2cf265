"""The log's requests served again by the simulator: in the engine's own order, and as a policy would."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trail.policy.spec import PolicySpec
from trail.report.stats import summary
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.predictors import Predictions
from trail.simulation.engine.steptime import StepModel
from trail.simulation.engine.workload import Workload
from trail.simulation.fit import FitError, Marks, fit_steps
from trail.simulation.run import Served, simulate
from trail.simulation.shadow.log import EngineLog, Logged

EVERY = 8
"""Tokens between two predictions of the replay; between those that were logged they are counted down."""
FEWEST = 100
"""Requests without which there is no estimate."""
GAINS = (("latency_s", "mean"), ("ttft_s", "mean"), ("latency_s", "p99"))

Floats = NDArray[np.float64]


class ReplayError(ValueError):
    """A log that no estimate can be made from; the message says why and what to do."""


@dataclass(frozen=True)
class Replay:
    """One engine's requests that can be replayed, with what the log says of them.

    `latency_s`, `ttft_s` [n] are as logged, NaN where it does not say. `left_out` counts requests that cannot
    be replayed: aborted before a token, or not known from their arrival on.
    """

    config: EngineConfig
    work: Workload
    predictions: Predictions
    steps: StepModel
    error: FitError
    latency_s: Floats
    ttft_s: Floats
    left_out: int
    unpredicted: int

    def serve(self, spec: PolicySpec, slowness: float = 1.0) -> Served:
        """The requests under `spec`, by an engine whose steps take `slowness` times as long.

        Raises ReplayError for a policy that needs what no log holds.
        """
        if spec.size == "gittins":
            raise ReplayError(f"{spec.text} ranks by distributions, and a log holds none; leave out -gittins")
        return simulate(self.config, self.steps.slower(slowness), self.work, spec, self.predictions)


def prepare(engine: EngineLog, requests: Sequence[Logged], *, token_budget: int, lag: int) -> Replay:
    """A replay of `requests`, in order of arrival, on the engine as it stated itself.

    `token_budget` is its max_num_batched_tokens, `lag` the steps until the board shows a new prediction.
    Raises ReplayError, or StepModelError where step times cannot be fitted.
    """
    usable = [r for r in requests if r.whole_life and r.output_tokens >= 1 and r.prompt_tokens >= 1]
    if len(usable) < FEWEST:
        raise ReplayError(
            f"engine {engine.engine}: {len(usable)} of {len(requests)} logged requests can be replayed, and"
            f" {FEWEST} are needed; let the sidecar log for longer"
        )
    if not engine.slots:
        raise ReplayError(f"engine {engine.engine} never stated its limits; is its log's first part missing?")
    arrival_s = np.array([r.arrival_s for r in usable])
    work = Workload(
        arrival_s - arrival_s[0],
        np.array([r.prompt_tokens for r in usable], np.int64),
        np.array([r.output_tokens for r in usable], np.int64),
    )
    steps, error = fit_steps([_marks(usable, work)], engine.model or "engine")
    return Replay(
        config=EngineConfig(
            slots=engine.slots,
            token_budget=token_budget,
            kv_blocks=engine.kv_blocks or None,
            block_tokens=engine.block_tokens or 16,
            prediction_lag=lag,
            initial_lag=lag,
        ),
        work=work,
        predictions=recorded(usable),
        steps=steps,
        error=error,
        latency_s=np.array([_or_nan(r.total_s) for r in usable]),
        ttft_s=np.array([_or_nan(r.first_token_s) for r in usable]),
        left_out=len(requests) - len(usable),
        unpredicted=sum(r.initial is None for r in usable),
    )


def recorded(requests: Sequence[Logged]) -> Predictions:
    """What was predicted of `requests`, as the simulator reads it. One without a prediction has the mean."""
    known = [r.initial for r in requests if r.initial is not None]
    if not known:
        raise ReplayError("no logged request has a prediction; was the sidecar started with a predictor?")
    mean = float(np.mean(known))
    initial = np.array([mean if r.initial is None else r.initial for r in requests])
    lines = [_along(r, first) for r, first in zip(requests, initial.tolist(), strict=True)]
    counts = np.array([len(line) for line in lines])
    none = np.full(len(requests), np.nan)
    refined = np.concatenate(lines).astype(np.float32)
    return Predictions(
        EVERY,
        initial,
        np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)[:-1])),
        refined,
        none,
        np.full(len(refined), np.nan, np.float32),
    )


def _along(request: Logged, initial: float) -> Floats:
    """Predicted remaining tokens at ages 0, EVERY, 2 EVERY, ...: the newest logged one, counted down."""
    ages = np.arange(0, request.output_tokens, EVERY)
    points = ((0, initial), *request.refined)
    at, left = np.array(points, np.float64).T
    newest = np.searchsorted(at, ages, side="right") - 1
    along: Floats = np.maximum(left[newest] - (ages - at[newest]), 0.0)
    return along


def _marks(requests: Sequence[Logged], work: Workload) -> Marks:
    """First and last tokens of all requests that say when they came."""
    known = [i for i, r in enumerate(requests) if r.first_token_s is not None and r.total_s is not None]
    rows = np.array(known, np.int64)
    first = work.arrival_s[rows] + np.array([_or_nan(requests[i].first_token_s) for i in known])
    last = work.arrival_s[rows] + np.array([_or_nan(requests[i].total_s) for i in known])
    output = work.output_tokens[rows]
    several = np.flatnonzero(output > 1)
    place = np.concatenate((np.arange(len(rows)), several))
    time_s = np.concatenate((first, last[several]))
    tokens = np.concatenate((np.ones(len(rows)), output[several]))
    order = np.lexsort((time_s, place))
    return Marks(
        arrival_s=work.arrival_s[rows],
        prompt_tokens=work.prompt_tokens[rows].astype(np.float64),
        request=place[order],
        time_s=time_s[order],
        tokens=tokens[order],
    )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def arm(latency_s: Floats, ttft_s: Floats) -> dict[str, Any]:
    """Statistics of one way of serving, over the requests that are known."""
    return {
        "requests": int(np.isfinite(latency_s).sum()),
        "latency_s": summary(latency_s[np.isfinite(latency_s)]),
        "ttft_s": summary(ttft_s[np.isfinite(ttft_s)]),
    }


def gains(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """How many times lower `after` is: mean latency, mean TTFT, p99 latency."""
    return {
        f"{statistic}_{quantity}": before[quantity][statistic] / after[quantity][statistic]
        for quantity, statistic in GAINS
    }


def steps_told(replay: Replay) -> dict[str, Any]:
    """The fitted step times and how far they are off, for the document."""
    model = replay.steps
    return {
        "fixed_s": model.fixed_s,
        "sequence_s": model.sequence_s,
        "prefill_token_s": model.prefill_token_s,
        "kv_token_s": model.kv_token_s,
        "error": asdict(replay.error),
    }
