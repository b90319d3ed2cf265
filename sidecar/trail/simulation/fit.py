"""A step model from a benchmark: what requests were given between two of their tokens, and how long it took.

A step gives every running request its token, so that between two tokens of one request, the first and the
last as a rule, as many steps passed as tokens came. In these steps, with all sums over the same time,

    seconds = fixed * steps + sequence * tokens decoded + prefill_token * prompt tokens + kv_token * KV read
              + arrival * arrivals

where the tokens of *all* requests count. What came when between two known times of a request is taken as
evenly spread over the time in which no prompt was computed; how long prompts take comes from the fit, which
is therefore repeated. Least squares with coefficients that are not negative, each stretch weighted as a sum
of so many independent steps; the coefficients are then scaled by the one factor that makes the whole time
right.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from trail.bench.results import read_results
from trail.simulation.engine.steptime import COEFFICIENTS, StepModel, StepModelError

Floats = NDArray[np.float64]

FEWEST_STEPS = 8
"""Intervals of fewer steps are left out: the client's own delays count too much in them."""
_MOST_INTERVALS = 4000
_CHUNK = 256
_HELD_OUT = 5
_ROUNDS = 5


@dataclass(frozen=True)
class Marks:
    """One run: requests `[n]`, and when how many of their tokens were there, `[m]` by request and time.

    `request`, `time_s`, `tokens` are of each mark; the first mark of a request is its first token.
    """

    arrival_s: Floats
    prompt_tokens: Floats
    request: NDArray[np.int64]
    time_s: Floats
    tokens: Floats


def read_marks(path: Path, arms: Sequence[str] | None = None) -> list[Marks]:
    """The runs of `trail bench`'s results at `path` in which nothing was preempted; of `arms`, or of all.

    Raises ResultsError.
    """
    return [
        run_marks(run)
        for name, arm in read_results(path)["arms"].items()
        if arms is None or name in arms
        for run in arm["runs"]
        if run["engine"]["preemptions"] == 0
    ]


def run_marks(run: Mapping[str, Any]) -> Marks:
    """First and last token of every request of a run that completed."""
    columns = run["requests"]
    rows = [
        (float(at), float(at) + float(ttft), float(at) + float(latency), int(prompt), int(output))
        for at, ttft, latency, prompt, output in zip(
            *(columns[k] for k in ("arrival_s", "ttft_s", "latency_s", "prompt_tokens", "output_tokens")),
            strict=True,
        )
        if ttft is not None and latency is not None and prompt and output
    ]
    arrival, first, last, prompt, output = np.array(rows, np.float64).reshape(len(rows), 5).T
    n = len(first)
    several = np.flatnonzero(output > 1)
    request = np.concatenate((np.arange(n), several))
    time_s, tokens = np.concatenate((first, last[several])), np.concatenate((np.ones(n), output[several]))
    order = np.lexsort((time_s, request))
    return Marks(arrival, prompt, request[order], time_s[order], tokens[order])


@dataclass(frozen=True)
class _Stretches:
    """What lies between two successive marks of a request, `[i]`; `context` is that before its first step."""

    begin: Floats
    end: Floats
    steps: Floats
    context: Floats

    def at(self, times: Callable[[Floats], Floats]) -> "_Stretches":
        """The same on another clock."""
        return _Stretches(times(self.begin), times(self.end), self.steps, self.context)

    def until(self, at: Floats) -> tuple[Floats, Floats]:
        """Tokens decoded, and KV tokens read for them, until times `at` [t] in all stretches together."""
        width = np.maximum(self.end - self.begin, 1e-9)
        made = self.steps * np.clip((at[:, None] - self.begin) / width, 0.0, 1.0)
        return made.sum(axis=1), (made * (self.context + (made + 1) / 2)).sum(axis=1)


def intervals(marks: Marks, prefill_token_s: float = 0.0) -> tuple[Floats, Floats]:
    """What passed between successive marks of each request: sums [i, 5] as in the model, and seconds [i].

    `prefill_token_s` is how long a prompt token is believed to take.
    """
    same = marks.request[1:] == marks.request[:-1]
    before = marks.tokens[:-1][same]
    every = _Stretches(
        begin=marks.time_s[:-1][same],
        end=marks.time_s[1:][same],
        steps=marks.tokens[1:][same] - before,
        # The newest token is fed in by the first step.
        context=marks.prompt_tokens[marks.request[:-1][same]] + before - 1,
    )
    useful = np.flatnonzero((every.steps >= FEWEST_STEPS) & (every.end > every.begin))
    if len(useful) > _MOST_INTERVALS:
        useful = useful[np.linspace(0, len(useful) - 1, _MOST_INTERVALS).astype(np.int64)]
    first = np.flatnonzero(np.diff(marks.request, prepend=-1))
    first_s, prompt = marks.time_s[first], marks.prompt_tokens[marks.request[first]]
    decoding = _decoding_clock(first_s, prompt * prefill_token_s)
    in_decoding = every.at(decoding)
    sums = np.zeros((len(useful), len(COEFFICIENTS)))
    for part in np.array_split(np.arange(len(useful)), len(useful) // _CHUNK + 1):
        begin, end = every.begin[useful[part], None], every.end[useful[part], None]
        tokens0, read0 = in_decoding.until(decoding(begin[:, 0]))
        tokens1, read1 = in_decoding.until(decoding(end[:, 0]))
        prompts = ((first_s > begin) & (first_s <= end)) @ prompt
        came = ((marks.arrival_s > begin) & (marks.arrival_s <= end)).sum(axis=1)
        sums[part] = np.column_stack(
            (every.steps[useful[part]], tokens1 - tokens0, prompts, read1 - read0 + prompts, came)
        )
    return sums, (every.end - every.begin)[useful]


def _decoding_clock(first_token_s: Floats, prompt_s: Floats) -> Callable[[Floats], Floats]:
    """A clock that stands still while prompts are computed, `prompt_s` [n] each before its first token."""
    order = np.argsort(first_token_s)
    ends, long = first_token_s[order], prompt_s[order]
    # One after another, back from the last: a step in which several end has them all before it.
    starts = np.empty_like(ends)
    following = np.inf
    for i in range(len(ends) - 1, -1, -1):
        ends[i] = min(ends[i], following)
        starts[i] = following = ends[i] - long[i]
    corners = np.column_stack((starts, ends)).ravel()
    shown = corners - np.repeat(np.cumsum(long), 2)
    shown[::2] += long
    return lambda times: np.where(
        times < corners[0], times, np.interp(times, corners, shown) + np.maximum(times - corners[-1], 0.0)
    )


@dataclass(frozen=True)
class FitError:
    """How far the model is from intervals that it was not fitted to, as shares of their time."""

    intervals: int
    mean_relative: float
    p90_relative: float
    bias: float
    """Total predicted over total measured time, less 1."""


def fit_steps(runs: Iterable[Marks], name: str) -> tuple[StepModel, FitError]:
    """The model that fits the runs, and its error: of every fifth interval by a fit to the others.

    Raises StepModelError where there is too little to fit.
    """
    known = list(runs)
    sums, seconds = _equations(known, 0.0)
    if len(seconds) < 10 * len(COEFFICIENTS):
        raise StepModelError(
            f"only {len(seconds)} stretches of at least {FEWEST_STEPS} tokens in runs without preemption; run"
            " trail bench with more requests, or with more KV cache"
        )
    for _ in range(_ROUNDS):
        sums, seconds = _equations(known, float(_least_squares(sums, seconds)[2]))
    held_out = np.arange(len(seconds)) % _HELD_OUT == 0
    predicted = sums[held_out] @ _least_squares(sums[~held_out], seconds[~held_out])
    off = np.abs(predicted / seconds[held_out] - 1)
    error = FitError(
        intervals=len(seconds),
        mean_relative=float(off.mean()),
        p90_relative=float(np.quantile(off, 0.9)),
        bias=float(predicted.sum() / seconds[held_out].sum() - 1),
    )
    coefficients = _least_squares(sums, seconds)
    try:
        model = StepModel(name, *coefficients.tolist())
    except StepModelError as e:
        raise StepModelError(f"{e}. The runs are too much alike: add one at a low load, or a burst") from e
    return model, error


def _equations(runs: Sequence[Marks], prefill_token_s: float) -> tuple[Floats, Floats]:
    parts = [intervals(marks, prefill_token_s) for marks in runs if len(marks.request)]
    if not parts:
        return np.zeros((0, len(COEFFICIENTS))), np.zeros(0)
    return np.concatenate([sums for sums, _ in parts]), np.concatenate([seconds for _, seconds in parts])


def _least_squares(sums: Floats, seconds: Floats) -> Floats:
    spread = np.sqrt(seconds)
    weighted = sums / spread[:, None]
    # Columns of like size, so that none is lost in rounding.
    scale = np.maximum(weighted.max(axis=0), 1e-300)
    found, _ = nnls(weighted / scale, seconds / spread)
    solution: Floats = found / scale
    whole = float((sums @ solution).sum())
    return solution * (float(seconds.sum()) / whole if whole > 0 else 1.0)


def fit_files(paths: Sequence[Path], arms: Sequence[str] | None = None) -> tuple[StepModel, FitError]:
    """The model of one engine from its results. Raises ResultsError, StepModelError."""
    results = [read_results(path) for path in paths]
    engines = sorted({" ".join(r["config"].get("vllm_args", ())) for r in results})
    if len(engines) > 1:
        raise StepModelError(f"the results are of differently started engines: {' and '.join(engines)}")
    model = str(results[0]["config"]["model"]).rstrip("/").rsplit("/", 1)[-1]
    return fit_steps([marks for path in paths for marks in read_marks(path, arms)], model)
