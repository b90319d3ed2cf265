import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.policy import decide
from trail.policy.sizes import Ranks, rank_requests
from trail.policy.spec import PolicySpec, parse_policy
from trail.simulation.engine.predictors import Confusion, Exact, Lognormal, Predictions, autocorrelated
from trail.simulation.engine.rows import BoardRows, board_rows
from trail.simulation.engine.workload import Workload
from trail.simulation.predictor_files import PredictorError, parse_predictor

RNG = np.random.default_rng


def workload(output: list[int]) -> Workload:
    n = len(output)
    return Workload(np.arange(n) * 1.0, np.full(n, 5), np.array(output))


def test_exact_predictions_are_the_truth() -> None:
    made = Exact().predict(workload([1, 10, 11]), 10, RNG(0))
    assert made.initial.tolist() == [1.0, 10.0, 11.0]
    assert made.first.tolist() == [0, 1, 2]
    assert made.refined.tolist() == [1.0, 10.0, 11.0, 1.0]
    assert made.errors(np.array([1, 10, 11]))["refined_mae_tokens"] == 0.0


def test_lognormal_errors_have_their_spread_and_correlation() -> None:
    work = workload([200] * 4000)
    made = Lognormal(0.5, 0.3, 0.9).predict(work, 10, RNG(1))
    initial = np.log(made.initial / 200)
    errors = np.log(made.refined.reshape(4000, 20) / (200 - 10 * np.arange(20)))
    assert initial.std() == pytest.approx(0.5, rel=0.05)
    assert abs(initial.mean()) < 0.03
    assert errors.std(axis=0) == pytest.approx(np.full(20, 0.3), rel=0.06)
    for apart in (1, 5):
        correlation = np.corrcoef(errors[:, 0], errors[:, apart])[0, 1]
        assert correlation == pytest.approx(0.9**apart, abs=0.04)
    assert abs(np.corrcoef(initial, errors[:, 0])[0, 1]) < 0.06


@given(st.lists(st.integers(1, 7), min_size=1, max_size=12), st.integers(0, 99))
def test_noise_along_requests_of_any_length(counts: list[int], seed: int) -> None:
    noise = autocorrelated(np.array(counts), 1.0, RNG(seed))
    assert noise.shape == (sum(counts),)
    # Fully correlated: one number a request.
    begin = np.concatenate(([0], np.cumsum(counts)[:-1]))
    for first, count in zip(begin, counts, strict=True):
        assert np.allclose(noise[first : first + count], noise[first])


def test_bins_are_said_as_often_as_the_matrix_says() -> None:
    initial, refined = ((0.8, 0.2, 0.0), (0.1, 0.6, 0.3), (0.0, 0.5, 0.5)), ((1, 0, 0), (0, 1, 0), (0, 1, 1))
    made = Confusion((0, 10, 20, 40), initial, refined, 0.5).predict(workload([15] * 20_000), 15, RNG(2))
    said, counts = np.unique(made.initial, return_counts=True)
    assert said.tolist() == [5.0, 15.0, 30.0]
    assert counts / 20_000 == pytest.approx([0.1, 0.6, 0.3], abs=0.015)
    assert set(made.refined.tolist()) == {15.0}
    # Lengths beyond the last edge belong to the last bin, half of which is said to be the one below.
    long = Confusion((0, 10, 20, 40), initial, refined, 0.5).predict(workload([500] * 5000), 500, RNG(3))
    assert (long.refined == 15.0).mean() == pytest.approx(0.5, abs=0.03)
    # What is said to be bin 1 is always of bin 2 here: the index is that of bin 2, its upper end's share.
    assert set(np.round(long.gittins, 3).tolist()) == {30.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("perfect", "write exact"),
        ("lognormal:a", "lognormal:a"),
        ("lognormal:-1", "must not be negative"),
        ("lognormal:1,1,2", "correlation must lie"),
        ("lognormal:1,1,1,1", "write exact"),
        ("confusion:/nowhere.json", "nowhere.json: no confusion matrices"),
        ("recorded:/nowhere.npz", "nowhere.npz: no recorded predictions"),
    ],
)
def test_predictors_that_do_not_exist(text: str, message: str) -> None:
    with pytest.raises(PredictorError, match=message):
        parse_predictor(text)


def test_predictors_by_name(tmp_path: Path) -> None:
    assert parse_predictor("exact") == Exact()
    assert parse_predictor("lognormal:0.5,0.3,0.8") == Lognormal(0.5, 0.3, 0.8)
    content = {"edges": [0, 10, 20], "initial": [[3, 1], [1, 3]], "refined": [[9, 1], [1, 9]]}
    path = tmp_path / "matrix.json"
    path.write_text(json.dumps({"confusion": content, "other": 1}))
    assert parse_predictor(f"confusion:{path}").text == "matrix.json (2 bins)"
    path.write_text(json.dumps({**content, "refined": [[0, 0], [1, 9]]}))
    with pytest.raises(PredictorError, match="row 0 of refined"):
        parse_predictor(f"confusion:{path}")
    path.write_text(json.dumps({**content, "refined": [[1, 9]]}))
    with pytest.raises(PredictorError, match="2 rows of 2"):
        parse_predictor(f"confusion:{path}")


def recorded(path: Path, **change: object) -> Path:
    arrays: dict[str, object] = {
        "every": 10,
        "output_tokens": np.array([25, 5]),
        "initial": np.array([30.0, 6.0]),
        "refined": np.array([26.0, 14.0, 6.0, 4.0]),
        **change,
    }
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_recorded_predictions_are_stretched_to_the_request(tmp_path: Path) -> None:
    predictor = parse_predictor(f"recorded:{recorded(tmp_path / 'said.npz')}")
    object.__setattr__(predictor, "neighbours", 1)  # nearest answer only
    made = predictor.predict(workload([50]), 10, RNG(0))
    # Twice the answer of 25: what was said at ages 0, 5, 10, 15, 20 of it (rounded to 0, 0 or 10, 10, ...).
    assert made.initial.tolist() == [60.0]
    assert made.refined[[0, 2, 4]].tolist() == [52.0, 28.0, 12.0]
    assert np.isnan(made.gittins).all()
    posterior = np.tile([0.0, 1.0], (4, 1))
    whole = recorded(tmp_path / "all.npz", posterior=posterior, edges=np.array([0.0, 10.0, 30.0]))
    indexed = parse_predictor(f"recorded:{whole}").predict(workload([25]), 10, RNG(0))
    assert np.isfinite(indexed.gittins).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"refined": np.zeros(3)}, "the lengths ask for 4"),
        ({"initial": np.zeros(3)}, "do not fit together"),
        ({"every": 0}, "do not fit together"),
        ({"output_tokens": None}, "no recorded predictions"),
    ],
)
def test_wrong_recorded_predictions_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = recorded(tmp_path / "bad.npz", **change)
    with pytest.raises(PredictorError, match=message):
        parse_predictor(f"recorded:{path}")


def ranked(spec: PolicySpec, work: Workload, made: Predictions, i: int, newest: int | None) -> Ranks:
    """Of request `i` by its prediction number `newest`, None: by the one before it runs."""
    place = made.first[i] + (newest or 0)
    return rank_requests(
        spec,
        initial=[made.initial[i]],
        remaining=[np.float32(made.initial[i]) if newest is None else made.refined[place]],
        exact=[work.output_tokens[i]],
        age=[(newest or 0) * made.every],
        prompt_tokens=[5],
        gittins=[np.float32(made.gittins_initial[i]) if newest is None else made.gittins[place]],
    )


@st.composite
def boards(draw: st.DrawFn, *policies: str) -> tuple[PolicySpec, Workload, Predictions, BoardRows, int, int]:
    """Rows under a policy, and a request at an age that it comes to."""
    spec, every = parse_policy(draw(st.sampled_from(policies))), draw(st.sampled_from([1, 7]))
    work = workload(draw(st.lists(st.integers(1, 60), min_size=1, max_size=5)))
    made = Lognormal().predict(work, every, RNG(0))
    i = draw(st.integers(0, len(work) - 1))
    age = draw(st.integers(0, int(work.output_tokens[i]) - 1))
    return spec, work, made, board_rows(spec, work, made), i, age


@given(boards("sjf", "trail-c0.4", "trail-prompt", "oracle", "mlfq", "adaptive", "trail-c0.4-gittins"))
def test_rows_are_those_of_rank_requests(
    board: tuple[PolicySpec, Workload, Predictions, BoardRows, int, int],
) -> None:
    spec, work, made, rows, i, age = board
    newest = (age - 1) // made.every if age and rows.refined else None
    row_age = (newest or 0) * made.every
    expected = ranked(spec, work, made, i, newest)
    now = decide.rank_now(expected.rank, expected.slope, np.array([row_age]), np.array([age]))
    assert rows.size(np.array([i]), np.array([age]), np.array([age])) == pytest.approx(now, rel=1e-6)
    assert rows.cutoff[i] == expected.cutoff[0]
    if spec.name in ("trail", "adaptive"):
        remaining = made.initial[i] if newest is None else made.refined[made.first[i] + newest]
        left = max(float(np.float32(remaining)) - (age - row_age), 0.0)
        assert rows.left(np.array([i]), np.array([age])) == pytest.approx([left])


@given(boards("sjf", "trail-prompt", "oracle"))
def test_a_row_that_no_prediction_refines_is_right_at_every_age(
    board: tuple[PolicySpec, Workload, Predictions, BoardRows, int, int],
) -> None:
    spec, work, made, rows, i, age = board
    newest = max(age - 1, 0) // made.every
    expected = ranked(spec, work, made, i, newest)
    now = decide.rank_now(expected.rank, expected.slope, np.array([newest * made.every]), np.array([age]))
    # What counts down from age 0 and what was made later were rounded to float32 each.
    rounding = float(np.spacing(rows.rank[rows.first[i]]) + np.spacing(expected.rank[0]))
    size = rows.size(np.array([i]), np.array([age]), np.array([age]))
    assert size == pytest.approx(now, rel=0, abs=rounding)
    assert rows.cutoff[i] == expected.cutoff[0]
