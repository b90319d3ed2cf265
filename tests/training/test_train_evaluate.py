"""From a recording to a predictor to a verdict, through the commands, on data whose answer is known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from recording_maker import Truth, make_recording, settings_of, some_prompts

from trail import cli
from trail.predict import artefact
from trail.predict.bins import Bins
from trail.simulation.engine.workload import Workload
from trail.simulation.predictor_files import parse_predictor
from trail.training.evaluate.arms import ARMS
from trail.training.evaluate.predictions import confusion

PROMPTS = some_prompts(150, seed=1)


class Telling(Truth):
    """Layer 3 holds the remaining length, blurred; layer 1 holds nothing."""

    def __init__(self, settings: object, seed: int) -> None:
        super().__init__(settings, seed)  # type: ignore[arg-type]  # as the maker has it
        ages = np.arange(13)
        self._vectors[3][:, :, 0] = self.lengths[:, None] - ages + 0.5 * self._vectors[3][:, :, 1]
        self.censored &= self.lengths > 8


def record(path: Path, chosen: slice, seed: int) -> Path:
    prompts = PROMPTS[chosen]
    make_recording(path, prompts, Telling(settings_of(prompts, samples=2, shard_requests=64), seed))
    return path


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recordings") / "training", slice(0, 110), 5)


@pytest.fixture(scope="module")
def test_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recordings") / "test", slice(90, 150), 6)


@pytest.fixture(scope="module")
def predictor(training: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("predictors") / "default"
    assert cli.main(["train", str(training), "--out", str(out), "--bins", "6", "--threads", "1"]) == 0
    return out


def test_training_finds_the_layer_that_tells_and_says_so(predictor: Path) -> None:
    manifest = artefact.load(predictor).manifest
    assert manifest.layer == 3
    assert set(manifest.metrics["layer_trial_mae_refined_tokens"]) == {"1", "3"}
    assert manifest.metrics["held_out"]["mae_refined_tokens"] < 1.2
    assert manifest.decoding.filter == "pool"
    assert manifest.model_revision == "abc"


def test_the_same_seed_gives_the_same_files(predictor: Path, training: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert cli.main(["train", str(training), "--out", str(again), "--bins", "6", "--threads", "1"]) == 0
    files = sorted(p.relative_to(predictor) for p in predictor.rglob("*") if p.is_file())
    assert files
    for file in files:
        assert (predictor / file).read_bytes() == (again / file).read_bytes(), file


def test_the_papers_recipe_has_the_papers_bins_and_filter(training: Path, tmp_path: Path) -> None:
    out = tmp_path / "paper"
    words = ["train", str(training), "--out", str(out), "--recipe", "trail-paper", "--epochs", "2"]
    assert cli.main([*words, "--no-prompt", "--layers", "3"]) == 0
    loaded = artefact.load(out)
    assert loaded.manifest.bins.edges == tuple(np.linspace(0, 512, 11))
    assert loaded.manifest.decoding.filter == "bayes"
    assert loaded.prompt is None
    assert not loaded.probe.reads_position


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--layers", "2"], "layer 2 was not recorded, these were: 1, 3"),
        (["--layers", "x"], "give layer numbers"),
        (["--recipe", "best"], "choose from default, trail-paper"),
        (["--device", "cuda"], "torch finds no GPU"),
        (["--held-out", "0.99"], "too few to train and judge on"),
    ],
)
def test_what_cannot_be_trained_is_named(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert cli.main(["train", str(training), "--out", str(tmp_path / "none"), *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_no_recording_and_a_damaged_one_are_named(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", str(tmp_path / "nothing"), "--out", str(tmp_path / "p")]) == 2
    assert "nothing" in capsys.readouterr().err
    damaged = tmp_path / "damaged"
    shutil.copytree(training, damaged)
    file = next((damaged / "shard-00001").glob("*3*.npy"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert cli.main(["train", str(damaged), "--out", str(tmp_path / "p")]) == 2
    assert "shard-00001" in capsys.readouterr().err


def test_the_verdict_compares_every_arm_on_prompts_that_were_not_trained_on(
    predictor: Path, training: Path, test_recording: Path, tmp_path: Path
) -> None:
    words = ["evaluate", str(predictor), "--recording", str(test_recording), "--training", str(training)]
    assert cli.main([*words, "--out", str(tmp_path), "--speed"]) == 0
    document = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(document["arms"]) == list(ARMS)
    known = {prompt.token_ids for prompt in PROMPTS[:110]}
    expected = [p.token_ids for p in PROMPTS[90:150] if p.token_ids not in known]
    assert document["test"]["prompts"] <= len(set(expected))
    assert document["test"]["trained_on_left_out"] >= 2 * 20
    assert document["test"]["censored_left_out"] > 0
    arms = document["arms"]
    assert arms["default"]["mae"] < arms["position"]["mae"] < arms["prompt"]["mae"]
    assert arms["default"]["mae_low"] <= arms["default"]["mae"] <= arms["default"]["mae_high"]
    assert set(arms["default"]["by_kind"]) <= {"", "story"}
    assert document["floor"] is None
    assert [entry["batch"] for entry in document["speed"]][:2] == [1, 4]
    page = (tmp_path / "report.html").read_text()
    assert "trail-paper-refined" in page


def test_the_simulator_reads_what_the_verdict_wrote(
    predictor: Path, training: Path, test_recording: Path, tmp_path: Path
) -> None:
    words = ["evaluate", str(predictor), "--recording", str(test_recording), "--training", str(training)]
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "evaluation.json").read_text())
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 12, 3000)
    work = Workload(np.zeros(3000), np.ones(3000, np.int64), lengths)
    recorded = parse_predictor(f"recorded:{tmp_path / 'predictions.npz'}")
    errors = recorded.predict(work, 1, rng).errors(work.output_tokens)
    # Layer 3 tells the remaining length to within half a token, the prompt nothing.
    assert errors["refined_mae_tokens"] < 1.5 < errors["initial_mae_tokens"]
    assert np.isfinite(recorded.predict(work, 1, rng).gittins).all()
    matrices = document["confusion"]
    assert np.sum(matrices["initial"]) == document["test"]["requests"]
    confusion = parse_predictor(f"confusion:{tmp_path / 'evaluation.json'}")
    errors = confusion.predict(work, 1, rng).errors(work.output_tokens)
    assert errors["refined_mae_tokens"] < errors["initial_mae_tokens"]


def test_confusion_matrices_count_what_was_said_of_what_was_true() -> None:
    bins = Bins((0, 2, 4, 6, 8, 16))
    lengths = np.array([3] * 12 + [9] * 12)
    remaining = np.concatenate([np.arange(n, 0, -1) for n in lengths])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    said = np.where(np.arange(24) < 6, 9.0, lengths)
    found = confusion(
        bins,
        lengths=lengths,
        remaining=remaining,
        initial=said,
        refined=remaining.astype(float),
        offsets=offsets,
    )
    assert found is not None
    # No length lies in [0, 2) nor in [4, 8): each joins its upper neighbour.
    assert found["edges"] == [0, 4, 16]
    assert found["initial"] == [[6, 6], [0, 12]]
    assert found["refined"][0][1] == found["refined"][1][0] == 0
    assert 0 <= found["correlation"] <= 1
    few = confusion(
        bins,
        lengths=lengths[:12],
        remaining=remaining[:36],
        initial=said[:12],
        refined=said[:1].repeat(36),
        offsets=offsets[:13],
    )
    assert few is None


def test_a_verdict_on_other_training_data_is_refused(
    predictor: Path, test_recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(predictor), "--recording", str(test_recording), "--out", str(tmp_path)]
    assert cli.main([*words, "--training", str(test_recording)]) == 2
    assert "was not trained on" in capsys.readouterr().err
    assert cli.main([*words, "--training", str(test_recording), "--floor"]) == 2
    assert "give --model" in capsys.readouterr().err
