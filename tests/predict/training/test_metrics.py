"""The metrics of forecasts agree with slow, obvious computations, and intervals with resampling by hand."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trail.predict.bins import Bins, equal_bins
from trail.predict.training import bootstrap
from trail.predict.training.calibration import edge_calibration, interval_coverage
from trail.predict.training.metrics import Forecast, JudgedRows, cdf, judge, paired_difference, quantile

SEEDS = st.integers(0, 2**32 - 1)
WIDTHS = st.lists(st.floats(1.0, 60.0), min_size=1, max_size=8)


def make_bins(widths: list[float]) -> Bins:
    edges = [0.0]
    for width in widths:
        edges.append(edges[-1] + width + 1e-6)
    return Bins(tuple(edges))


def make_probabilities(rng: np.random.Generator, n: int, k: int) -> npt.NDArray[np.float32]:
    """Distributions of very different certainty, some bins with no mass at all."""
    mass = rng.gamma(rng.choice([0.1, 1.0, 20.0], size=(n, 1)), size=(n, k)) + 1e-9
    mass[rng.random((n, k)) < 0.2] = 0.0
    mass[np.arange(n), rng.integers(k, size=n)] += 0.1
    return (mass / mass.sum(axis=1, keepdims=True)).astype(np.float32)


def draw(
    rng: np.random.Generator, probabilities: npt.NDArray[np.float32], bins: Bins
) -> npt.NDArray[np.int64]:
    """One whole number a row from the stated distribution, each whole number of a bin as likely."""
    lengths = []
    for p in probabilities.astype(np.float64):
        i = rng.choice(bins.k, p=p / p.sum())
        lengths.append(rng.integers(int(np.ceil(bins.edges[i])), int(np.ceil(bins.edges[i + 1]))))
    return np.array(lengths, dtype=np.int64)


def make_rows(
    rng: np.random.Generator, prompts: int = 12, requests: int = 2, kinds: int | None = None
) -> JudgedRows:
    """Every decode step of requests of up to 40 tokens, shuffled, with prompt ids that leave gaps."""
    table = []
    for prompt in range(prompts):
        for request in range(int(rng.integers(1, requests + 1))):
            length = int(rng.integers(2, 40))
            table += [(7 * prompt, 100 * prompt + request, a, length - a) for a in range(1, length)]
    columns = np.array(table, dtype=np.int64)[rng.permutation(len(table))]
    kind = None if kinds is None else columns[:, 0] // 7 % kinds
    return JudgedRows(columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3], kind)


def make_forecast(rng: np.random.Generator, rows: JudgedRows, k: int = 5) -> Forecast:
    n = len(rows.remaining)
    tokens = np.maximum(rows.remaining * rng.lognormal(0, 0.5, n) + rng.normal(0, 3, n), 0.0)
    return Forecast(equal_bins(k, 45.0), make_probabilities(rng, n, k), tokens)


def point(rows: JudgedRows, tokens: npt.ArrayLike) -> Forecast:
    return Forecast(equal_bins(), None, np.broadcast_to(np.asarray(tokens, float), rows.age.shape).copy())


# Distributions


@given(widths=WIDTHS, seed=SEEDS)
def test_the_cumulative_probability_at_a_quantile_is_its_level(widths: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    bins = make_bins(widths)
    p = make_probabilities(rng, 20, bins.k)
    levels = rng.random(20)
    np.testing.assert_allclose(cdf(p, bins, quantile(p, bins, levels)), levels, atol=2e-6)


@given(widths=WIDTHS, seed=SEEDS)
def test_the_quantile_at_a_cumulative_probability_is_its_place_wherever_there_is_mass(
    widths: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    bins = make_bins(widths)
    p = rng.dirichlet(np.full(bins.k, 5.0), 20) * 0.9 + 0.1 / bins.k
    x = rng.random(20) * bins.edges[-1]
    np.testing.assert_allclose(quantile(p, bins, cdf(p, bins, x)), x, rtol=1e-6, atol=1e-6)


@given(widths=WIDTHS, seed=SEEDS, beyond=st.floats(-5, 5))
def test_the_cumulative_probability_adds_up_bin_by_bin(widths: list[float], seed: int, beyond: float) -> None:
    rng = np.random.default_rng(seed)
    bins = make_bins(widths)
    p = make_probabilities(rng, 10, bins.k)
    x = float(rng.uniform(0, bins.edges[-1])) + beyond

    def slow(row: npt.NDArray[np.float32]) -> float:
        inside = [
            float(np.clip((x - lower) / (upper - lower), 0, 1))
            for lower, upper in zip(bins.edges, bins.edges[1:], strict=False)
        ]
        return sum(float(mass) * part for mass, part in zip(row, inside, strict=True))

    np.testing.assert_allclose(cdf(p, bins, x), [slow(row) for row in p], atol=1e-6)


def test_a_distribution_has_no_value_at_nan() -> None:
    with pytest.raises(ValueError, match="NaN"):
        cdf(np.array([[1.0]]), equal_bins(1, 8.0), float("nan"))


# Calibration


@pytest.mark.parametrize("bins", [equal_bins(10, 512.0), equal_bins(24, 30.0), Bins((0, 1, 2, 4, 9.5, 80))])
@settings(max_examples=10)
@given(seed=SEEDS)
def test_intervals_cover_what_is_drawn_from_the_stated_distribution_four_times_in_five(
    bins: Bins, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    p = make_probabilities(rng, 3000, bins.k)
    coverage, width = interval_coverage(draw(rng, p, bins), p, bins)
    assert coverage == pytest.approx(0.8, abs=0.04)
    assert 0 < width < bins.edges[-1]


def test_coverage_by_hand() -> None:
    # Ten whole numbers, one bin: the interval is [1, 9), which holds 1 to 8.
    bins = equal_bins(1, 10.0)
    covered = [interval_coverage(np.array([n]), np.ones((1, 1)), bins)[0] for n in range(12)]
    np.testing.assert_allclose(covered, [0, *[1] * 8, 0, 0, 0], atol=1e-12)
    # Four whole numbers: [0.4, 3.6) holds six tenths of 0 and of 3.
    covered = [interval_coverage(np.array([n]), np.ones((1, 1)), equal_bins(1, 4.0))[0] for n in range(4)]
    np.testing.assert_allclose(covered, [0.6, 1, 1, 0.6])


def test_coverage_and_width_of_many_rows_are_means_over_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    bins = equal_bins(6, 60.0)
    p = make_probabilities(rng, 50, bins.k)
    truth = rng.integers(0, 60, 50)
    whole = interval_coverage(truth, p, bins)
    monkeypatch.setattr("trail.predict.training.calibration._CHUNK_ROWS", 7)
    assert interval_coverage(truth, p, bins) == pytest.approx(whole)


@settings(max_examples=10)
@given(seed=SEEDS)
def test_the_calibration_error_is_near_zero_for_what_happens_and_large_for_what_does_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bins = equal_bins(6, 60.0)
    p = make_probabilities(rng, 4000, bins.k)
    truth = draw(rng, p, bins)
    right, wrong = edge_calibration(truth, p, bins), edge_calibration(truth, np.roll(p, 3, axis=1), bins)
    assert right
    assert wrong
    assert right[0] < 0.03
    assert wrong[0] > 0.15
    for stated, observed, count in zip(*right[1].values(), strict=True):
        assert observed == pytest.approx(stated, abs=5 / np.sqrt(count))


@given(seed=SEEDS, n=st.integers(1, 80))
def test_the_calibration_error_agrees_with_a_loop_over_edges_and_groups(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    bins = equal_bins(4, 40.0)
    p = rng.dirichlet(np.ones(4), n)
    truth = rng.integers(0, 45, n)
    total = 0.0
    for edge in range(1, 4):
        stated = p[:, :edge].sum(axis=1)
        happened = truth < bins.edges[edge]
        for group in np.split(np.argsort(stated), np.linspace(0, n, 11).astype(int)[1:-1]):
            if len(group):
                total += len(group) / n * abs(stated[group].mean() - happened[group].mean())
    found = edge_calibration(truth, p, bins)
    assert found
    assert found[0] == pytest.approx(total / 3)


@given(seed=SEEDS)
def test_the_order_of_rows_does_not_matter_where_many_state_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bins = equal_bins(4, 40.0)
    p = make_probabilities(rng, 5, 4)[rng.integers(5, size=200)]
    truth = np.sort(rng.integers(0, 45, 200))
    found, mixed = edge_calibration(truth, p, bins), rng.permutation(200)
    assert found
    again = edge_calibration(truth[mixed], p[mixed], bins)
    assert again
    assert again[0] == pytest.approx(found[0])


def test_one_bin_has_no_inner_edge_to_be_calibrated_at() -> None:
    assert edge_calibration(np.array([3]), np.ones((1, 1)), equal_bins(1, 8.0)) is None


# Judging


@given(seed=SEEDS)
@settings(max_examples=30)
def test_judge_agrees_with_loops_over_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = make_rows(rng, kinds=3)
    forecast = make_forecast(rng, rows)
    result = judge(rows, forecast, kinds=("a", "b", "c"), resamples=10)
    error = forecast.tokens - rows.remaining
    assert result["mae"] == pytest.approx(np.mean([abs(e) for e in error]))
    assert result["rmse"] == pytest.approx(np.sqrt(np.mean([e * e for e in error])))
    assert result["bias"] == pytest.approx(np.mean(error))
    assert forecast.probabilities is not None
    hits = [
        int(np.argmax(p)) == forecast.bins.index([n])[0]
        for p, n in zip(forecast.probabilities, rows.remaining, strict=True)
    ]
    assert result["bin_accuracy"] == pytest.approx(np.mean(hits))

    def group(chosen: list[bool]) -> dict[str, Any]:
        values = np.abs(error)[chosen]
        return {"mae": pytest.approx(values.mean()) if len(values) else None, "rows": len(values)}

    for decile, found in enumerate(result["by_decile"]):
        chosen = [
            10 * a >= decile * (a + n) and (10 * a < (decile + 1) * (a + n) or decile == 9)
            for a, n in zip(rows.age, rows.remaining, strict=True)
        ]
        assert found == group(chosen)
    for band in result["by_length"]:
        chosen = [band["from_tokens"] <= length <= band["to_tokens"] for length in rows.whole]
        assert {"mae": band["mae"], "rows": band["rows"]} == group(chosen)
    for number, kind in enumerate("abc"):
        assert result["by_kind"][kind] == group([k == number for k in rows.kind])
    counts = np.zeros((10, 10), dtype=int)
    longest = rows.remaining.max()
    for n, tokens in zip(rows.remaining, forecast.tokens, strict=True):
        counts[min(9, 10 * n // longest), int(min(9, max(0, 10 * tokens // longest)))] += 1
    assert result["heatmap"] == {"max_tokens": longest, "counts": counts.tolist()}
    json.dumps(result, allow_nan=False)


def test_fifths_of_the_answers_by_length() -> None:
    lengths = [2, 3, 5, 8, 13, 21, 34, 55, 89, 144]
    request = np.repeat(np.arange(10), [n - 1 for n in lengths])
    age = np.concatenate([np.arange(1, n) for n in lengths])
    rows = JudgedRows(request, request, age, np.repeat(lengths, [n - 1 for n in lengths]) - age)
    bands = judge(rows, point(rows, 0.0), resamples=10)["by_length"]
    limits = [(band["from_tokens"], band["to_tokens"]) for band in bands]
    assert limits == [(2, 3), (4, 8), (9, 21), (22, 55), (56, 144)]
    assert sum(band["rows"] for band in bands) == len(age)


def test_answers_of_one_length_make_one_band() -> None:
    rows = JudgedRows(*(np.array(c) for c in ([0, 1], [0, 1], [2, 3], [4, 3])))
    bands = judge(rows, point(rows, 0.0), resamples=10)["by_length"]
    assert bands == [{"from_tokens": 6, "to_tokens": 6, "mae": 3.5, "rows": 2}]


def test_a_forecast_without_probabilities_is_judged_by_its_tokens_alone() -> None:
    rows = make_rows(np.random.default_rng(0))
    result = judge(rows, point(rows, 11.0), resamples=10)
    assert [key for key, value in result.items() if value is None] == [
        "bin_accuracy", "coverage80", "width80", "ece", "reliability", "by_kind",
    ]  # fmt: skip


def test_kinds_without_rows_are_left_out_and_kinds_without_names_refused() -> None:
    rows = make_rows(np.random.default_rng(0), kinds=2)
    names = ("chat", "code", "never")
    assert set(judge(rows, point(rows, 3.0), kinds=names, resamples=10)["by_kind"]) == {"chat", "code"}
    with pytest.raises(ValueError, match="go from 0 to 1, there are 1 names"):
        judge(rows, point(rows, 3.0), kinds=("chat",), resamples=10)


# Intervals


def slow_bootstrap(prompt: npt.NDArray[np.int64], *columns: npt.NDArray[np.float64]) -> list[list[float]]:
    """400 resamples of whole prompts: sums of the columns and the number of rows, row by row."""
    rng = np.random.default_rng(99)
    names = sorted(set(prompt.tolist()))
    rows_of = {name: np.flatnonzero(prompt == name) for name in names}
    sums = []
    for _ in range(400):
        chosen = np.concatenate([rows_of[name] for name in rng.choice(names, len(names))])
        sums.append([*(float(column[chosen].sum()) for column in columns), float(len(chosen))])
    return sums


@settings(max_examples=15)
@given(seed=SEEDS)
def test_the_interval_is_that_of_a_slow_bootstrap_over_prompts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = make_rows(rng, prompts=25)
    a, b = make_forecast(rng, rows), make_forecast(rng, rows)
    result = judge(rows, a, resamples=2000, seed=seed % 1000)
    error_a, error_b = np.abs(a.tokens - rows.remaining), np.abs(b.tokens - rows.remaining)
    sums = np.array(slow_bootstrap(rows.prompt, error_a, error_b))
    low, high = np.percentile(sums[:, 0] / sums[:, 2], [2.5, 97.5])
    room = 0.25 * (high - low)
    assert [result["mae_low"], result["mae_high"]] == pytest.approx([low, high], abs=room)
    found = paired_difference(rows, a, b, resamples=2000, seed=seed % 1000)
    for keys, values in (
        (("low", "high"), (sums[:, 0] - sums[:, 1]) / sums[:, 2]),
        (("relative_low", "relative_high"), (sums[:, 0] - sums[:, 1]) / sums[:, 1]),
    ):
        low, high = np.percentile(values, [2.5, 97.5])
        assert [found[key] for key in keys] == pytest.approx([low, high], abs=0.25 * (high - low))


def test_resampled_sums_are_those_of_the_drawn_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(1).random((5, 3))
    drawn = np.random.default_rng(8).integers(5, size=(40, 5))
    expected = [sum(table[i] for i in row) for row in drawn]
    np.testing.assert_allclose(bootstrap.resampled(table, 40, 8), expected)
    monkeypatch.setattr(bootstrap, "_CHUNK_DRAWS", 17)
    np.testing.assert_allclose(bootstrap.resampled(table, 40, 8), expected)


def test_prompts_not_requests_are_the_unit() -> None:
    """Ten copies of each prompt's request say nothing that one copy did not."""
    rng = np.random.default_rng(5)
    once = make_rows(rng, prompts=30, requests=1)
    copies = np.tile(np.arange(len(once.age)), 10)
    request = once.request[copies] + 100_000 * np.repeat(np.arange(10), len(once.age))
    many = JudgedRows(once.prompt[copies], request, once.age[copies], once.remaining[copies])
    results = [judge(rows, point(rows, 10.0), seed=4) for rows in (once, many)]
    assert results[0]["mae_low"] == pytest.approx(results[1]["mae_low"])
    assert results[0]["mae_high"] == pytest.approx(results[1]["mae_high"])


@given(seed=SEEDS)
@settings(max_examples=20)
def test_a_forecast_differs_from_itself_by_nothing_and_from_another_one_way_round(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = make_rows(rng)
    a, b = make_forecast(rng, rows), make_forecast(rng, rows)
    assert set(paired_difference(rows, a, a, resamples=50).values()) == {0.0}
    there, back = (paired_difference(rows, *pair, resamples=50) for pair in ((a, b), (b, a)))
    assert there["difference"] == pytest.approx(-back["difference"])  # type: ignore[operator]
    assert there["low"] == pytest.approx(-back["high"])  # type: ignore[operator]
    maes = [judge(rows, f, resamples=1)["mae"] for f in (a, b)]
    assert there["difference"] == pytest.approx(maes[0] - maes[1])
    assert there["relative"] == pytest.approx(maes[0] / maes[1] - 1)


def test_one_prompt_gives_no_interval_and_an_errorless_forecast_no_share() -> None:
    rows = JudgedRows(*(np.array(c) for c in ([4, 4], [0, 0], [1, 2], [6, 5])))
    assert judge(rows, point(rows, 5.0))["mae_low"] is None
    found = paired_difference(rows, point(rows, 5.0), point(rows, [6.0, 5.0]))
    assert found.pop("difference") == 0.5
    assert set(found.values()) == {None}


# Refusals


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (([], [], [], []), "no decode step"),
        (([0, 0], [0, 0], [1, 2], [3]), r"different lengths: \[2, 2, 2, 1\]"),
        (([0], [0], [-1], [3]), "cannot be negative"),
        (([0], [0], [1], [-3]), "cannot be negative"),
        (([0, 0], [9, 9], [1, 2], [3, 3]), "request 9 disagree about its whole length"),
        (([0], [0], [1], [2], []), "different lengths"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(columns: tuple[list[int], ...], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        JudgedRows(*(np.array(column, dtype=np.int64) for column in columns))


@pytest.mark.parametrize(
    ("probabilities", "tokens", "names"),
    [
        (None, [1.0, float("nan")], "prediction of row 1 is nan"),
        ([[1.0, 0.0, 0.0]], [1.0], r"shape \[1, 3\].* ask for \[1, 2\]"),
        ([[0.5, 0.5], [0.7, 0.7]], [1.0, 1.0], "row 1 of the probabilities .* sums to 1.4"),
        ([[1.5, -0.5]], [1.0], "row 0 .* least entry is -0.5"),
        ([[float("nan"), 1.0]], [1.0], "row 0 of the probabilities is no distribution"),
    ],
)
def test_forecasts_that_are_none_are_refused(
    probabilities: list[list[float]] | None, tokens: list[float], names: str
) -> None:
    p = None if probabilities is None else np.array(probabilities, dtype=np.float32)
    with pytest.raises(ValueError, match=names):
        Forecast(equal_bins(2, 8.0), p, np.array(tokens))


def test_a_forecast_for_other_rows_is_refused() -> None:
    rows = make_rows(np.random.default_rng(0))
    other = Forecast(equal_bins(), None, np.zeros(3))
    with pytest.raises(ValueError, match=f"3 predictions for {len(rows.age)} rows"):
        judge(rows, other)
    with pytest.raises(ValueError, match="3 predictions"):
        paired_difference(rows, point(rows, 1.0), other)
