"""How good forecasts of remaining length are, judged at every decode step, with intervals over prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trail.predict.bins import Bins
from trail.predict.quantiles import quantile
from trail.predict.training.bootstrap import interval, prompt_sums, resampled
from trail.predict.training.calibration import cdf, edge_calibration, interval_coverage

__all__ = ("Forecast", "JudgedRows", "cdf", "judge", "paired_difference", "quantile")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_DECILES = 10
_LENGTH_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
_MAP_BINS = 10
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class JudgedRows:
    """What is judged: one entry a decode step, int64 [N] each.

    `prompt` is the unit of the bootstrap (several requests may share one), `age` the tokens generated so
    far, `remaining` the tokens still to come, `kind` an index into a list of kinds of prompt where the data
    name one. Raises ValueError where there is no row, lengths differ, a number of tokens is negative, or
    the rows of a request disagree about its whole length.
    """

    prompt: Ints
    request: Ints
    age: Ints
    remaining: Ints
    kind: Ints | None = None

    def __post_init__(self) -> None:
        columns = [self.prompt, self.request, self.age, self.remaining]
        sizes = [len(column) for column in (*columns, *([] if self.kind is None else [self.kind]))]
        if sizes[0] == 0:
            raise ValueError("there is no decode step to judge")
        if len(set(sizes)) > 1:
            raise ValueError(f"the columns of the judged rows have different lengths: {sizes}")
        if self.age.min() < 0 or self.remaining.min() < 0:
            raise ValueError("ages and remaining lengths are token counts and cannot be negative")
        _, first, index = np.unique(self.request, return_index=True, return_inverse=True)
        differs = self.whole != self.whole[first][index]
        if differs.any():
            raise ValueError(
                f"the rows of request {self.request[np.argmax(differs)]} disagree about its whole length"
            )

    @property
    def whole(self) -> Ints:
        """Whole output length of every row's request in tokens, int64 [N]."""
        return self.age + self.remaining


@dataclass(frozen=True)
class Forecast:
    """What a predictor said at each row.

    `tokens` float64 [N] is the predicted remaining length; `probabilities` float32 [N, k] its distribution
    over `bins`, None where the predictor gives none. Raises ValueError for predictions that are not finite,
    rows of `probabilities` that are negative, not finite or do not sum to 1, and shapes that do not fit.
    """

    bins: Bins
    probabilities: npt.NDArray[np.float32] | None
    tokens: Floats

    def __post_init__(self) -> None:
        if not np.all(np.isfinite(self.tokens)):
            row = int(np.argmin(np.isfinite(self.tokens)))
            raise ValueError(f"the prediction of row {row} is {self.tokens[row]}, not a number of tokens")
        if self.probabilities is None:
            return
        expected = (len(self.tokens), self.bins.k)
        if self.probabilities.shape != expected:
            raise ValueError(
                f"the probabilities have shape {list(self.probabilities.shape)}, the predictions and bins"
                f" ask for {list(expected)}"
            )
        total, least = self.probabilities.sum(axis=1, dtype=np.float64), self.probabilities.min(axis=1)
        usable = (np.abs(total - 1) <= _TOLERANCE) & (least >= 0)  # NaN is neither
        if not usable.all():
            row = int(np.argmin(usable))
            raise ValueError(
                f"row {row} of the probabilities is no distribution: it sums to {total[row]:g} and its least"
                f" entry is {least[row]:g}"
            )


def judge(
    rows: JudgedRows,
    forecast: Forecast,
    *,
    kinds: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything there is to say of one forecast, ready for JSON; lengths and errors in tokens.

    `mae`, with `mae_low` and `mae_high` its 95 % bootstrap interval over prompts (None with a single
    prompt), `rmse`, `bias` (mean of predicted - true). `bin_accuracy`: share of rows whose most probable
    bin is the true one. `coverage80`, `width80`: see `calibration.interval_coverage`. `ece`,
    `reliability`: see `calibration.edge_calibration`. These five are None without probabilities.

    `by_decile`: `mae` (None without rows) and `rows` for every tenth of progress, age / whole length.
    `by_length`: the same for fifths of the requests by whole length, `from_tokens` to `to_tokens`, both
    included; fewer where many requests are equally long. `by_kind`: the same for the `kinds` that have
    rows, by name; None where rows name no kind. `heatmap`: `counts` [true][predicted] over 10 equal bins
    from 0 to `max_tokens`, the longest true remaining length; predictions outside count at the border.

    Raises ValueError where rows and forecast differ in length or a kind has no name.
    """
    _check_lengths(rows, forecast)
    error = forecast.tokens - rows.remaining
    size = np.abs(error)
    table = prompt_sums(rows.prompt, size)
    low = high = None
    if len(table) > 1:
        sums = resampled(table, resamples, seed)
        low, high = interval(sums[:, 0] / sums[:, 1])
    decile = np.minimum(_DECILES * rows.age // np.maximum(rows.whole, 1), _DECILES - 1)
    return {
        "mae": float(size.mean()),
        "mae_low": low,
        "mae_high": high,
        "rmse": float(np.sqrt(np.square(error).mean())),
        "bias": float(error.mean()),
        **_judge_distribution(rows, forecast),
        "by_decile": _by_group(size, decile, _DECILES),
        "by_length": _by_length(rows, size),
        "by_kind": _by_kind(rows, size, kinds),
        "heatmap": _heatmap(rows, forecast),
    }


def paired_difference(
    rows: JudgedRows, a: Forecast, b: Forecast, *, resamples: int = 1000, seed: int = 0
) -> dict[str, float | None]:
    """MAE of `a` less MAE of `b`, with 95 % bootstrap intervals over prompts drawn for both alike.

    `difference`, `low`, `high` are tokens; `relative`, `relative_low`, `relative_high` are shares of b's
    MAE. Negative: `a` errs less. A single prompt gives no interval (None), an errorless `b` no shares.
    Raises ValueError where rows and forecasts differ in length.
    """
    _check_lengths(rows, a)
    _check_lengths(rows, b)
    error_b = np.abs(b.tokens - rows.remaining)
    # The difference is a column of its own: a forecast against itself gives exactly 0.
    table = prompt_sums(rows.prompt, np.abs(a.tokens - rows.remaining) - error_b, error_b)
    difference, total, count = (float(value) for value in table.sum(axis=0))
    result: dict[str, float | None] = dict.fromkeys(
        ("difference", "low", "high", "relative", "relative_low", "relative_high")
    )
    result["difference"] = difference / count
    result["relative"] = difference / total if total else None
    if len(table) > 1:
        sums = resampled(table, resamples, seed)
        result["low"], result["high"] = interval(sums[:, 0] / sums[:, 2])
        if np.all(sums[:, 1] > 0):
            result["relative_low"], result["relative_high"] = interval(sums[:, 0] / sums[:, 1])
    return result


def _judge_distribution(rows: JudgedRows, forecast: Forecast) -> dict[str, Any]:
    result: dict[str, Any] = dict.fromkeys(("bin_accuracy", "coverage80", "width80", "ece", "reliability"))
    p = forecast.probabilities
    if p is None:
        return result
    result["coverage80"], result["width80"] = interval_coverage(rows.remaining, p, forecast.bins)
    result["bin_accuracy"] = float((p.argmax(axis=1) == forecast.bins.index(rows.remaining)).mean())
    if found := edge_calibration(rows.remaining, p, forecast.bins):
        result["ece"], result["reliability"] = found
    return result


def _by_group(size: Floats, group: Ints, groups: int) -> list[dict[str, Any]]:
    counts = np.bincount(group, minlength=groups).tolist()
    sums = np.bincount(group, weights=size, minlength=groups).tolist()
    return [{"mae": s / n if n else None, "rows": n} for s, n in zip(sums, counts, strict=True)]


def _by_length(rows: JudgedRows, size: Floats) -> list[dict[str, Any]]:
    _, first = np.unique(rows.request, return_index=True)
    lengths = rows.whole[first]
    last = np.unique(np.quantile(lengths, _LENGTH_SHARES, method="inverted_cdf"))
    bands = _by_group(size, np.searchsorted(last, rows.whole), len(last))
    starts = [int(lengths.min()), *(int(length) + 1 for length in last[:-1])]
    return [
        {"from_tokens": start, "to_tokens": int(end), **band}
        for start, end, band in zip(starts, last, bands, strict=True)
    ]


def _by_kind(rows: JudgedRows, size: Floats, kinds: Sequence[str]) -> dict[str, Any] | None:
    if rows.kind is None:
        return None
    if rows.kind.min() < 0 or rows.kind.max() >= len(kinds):
        raise ValueError(
            f"kinds of rows go from {rows.kind.min()} to {rows.kind.max()}, there are {len(kinds)} names"
        )
    groups = _by_group(size, rows.kind, len(kinds))
    return {name: group for name, group in zip(kinds, groups, strict=True) if group["rows"]}


def _heatmap(rows: JudgedRows, forecast: Forecast) -> dict[str, Any]:
    longest = max(int(rows.remaining.max()), 1)
    true = np.minimum(_MAP_BINS * rows.remaining // longest, _MAP_BINS - 1)
    predicted = np.clip(np.floor(_MAP_BINS * forecast.tokens / longest), 0, _MAP_BINS - 1).astype(np.int64)
    counts = np.bincount(true * _MAP_BINS + predicted, minlength=_MAP_BINS**2)
    return {"max_tokens": longest, "counts": counts.reshape(_MAP_BINS, _MAP_BINS).tolist()}


def _check_lengths(rows: JudgedRows, forecast: Forecast) -> None:
    if len(forecast.tokens) != len(rows.remaining):
        raise ValueError(f"{len(forecast.tokens)} predictions for {len(rows.remaining)} rows")
