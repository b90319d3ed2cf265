"""The committed demo model is what its statistics say, and small enough for the repository."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from benchmarks.demo_model import sampling, train_model
from trail.demo import demo_model_dir, demo_predictor_dir
from trail.demo.corpus import demo_prompts
from trail.demo.tokenizer import token_ids
from trail.predict import artefact
from trail.predict.refine import Refiner
from trail.predict.training.evaluation import evaluate_sequences

MAX_TOKENS = 640
DATA = demo_model_dir().parent


@pytest.fixture(scope="module")
def model() -> Any:
    return train_model.load_model(demo_model_dir())


@pytest.fixture(scope="module")
def declared() -> dict[str, Any]:
    return dict(json.loads((DATA / "statistics.json").read_text()))


@pytest.fixture(scope="module")
def answers(model: Any) -> list[sampling.Sample]:
    """Two answers to each of 150 prompts, of a seed that the build did not use."""
    prompts = [p.token_ids for p in demo_prompts(150, seed=77) for _ in range(2)]
    return sampling.sample_answers(model, prompts, seed=77, max_tokens=MAX_TOKENS)


def test_everything_together_is_at_most_8_mb() -> None:
    assert sum(file.stat().st_size for file in DATA.rglob("*") if file.is_file()) <= 8_000_000


def test_declared_statistics_meet_the_requirement(declared: dict[str, Any]) -> None:
    lengths = declared["lengths"]
    assert lengths["mean_tokens"] >= 100
    assert lengths["scv"] >= 0.7
    assert 0.3 <= lengths["prompt_r2"] <= 0.7
    assert lengths["ended_share"] >= 0.995


def test_measured_again_the_statistics_agree(
    answers: list[sampling.Sample], declared: dict[str, Any]
) -> None:
    lengths = np.array([len(answer.output) for answer in answers], np.float64)
    measured = sampling.length_statistics(lengths.reshape(150, 2), float(np.mean([a.ended for a in answers])))
    expected = declared["lengths"]
    # Four standard errors of the mean of 150 prompts with two answers each.
    error = np.sqrt(expected["scv"] * (expected["prompt_r2"] + (1 - expected["prompt_r2"]) / 2) / 150)
    assert abs(measured.mean_tokens / expected["mean_tokens"] - 1) < 4 * error
    assert measured.scv == pytest.approx(expected["scv"], rel=0.35)
    assert measured.prompt_r2 == pytest.approx(expected["prompt_r2"], abs=0.2)
    assert measured.ended_share >= 0.98


def test_nearly_all_answers_stay_below_512_tokens(answers: list[sampling.Sample]) -> None:
    assert np.mean([len(answer.output) < 512 for answer in answers]) >= 0.97


def test_sampled_tokens_are_as_likely_as_the_model_says(model: Any, answers: list[sampling.Sample]) -> None:
    """Mean surprise of the samples equals the mean entropy of the distributions they were drawn from.

    A row that went on with another row's cache after the batch was thinned out would surprise the model.
    """
    surprise, entropy = [], []
    for answer in answers[:80]:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([answer.prompt + answer.output])).logits[0]
        log_p = torch.log_softmax(logits[len(answer.prompt) - 1 : -1], dim=-1)
        surprise += (-log_p.gather(1, torch.tensor(answer.output)[:, None])[:, 0]).tolist()
        entropy += (-(log_p.exp() * log_p).sum(dim=1)).tolist()
    difference = np.asarray(surprise) - np.asarray(entropy)
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(difference))


def test_most_answers_write_the_parts_they_announce(answers: list[sampling.Sample]) -> None:
    words = {index: word for word, index in token_ids().items()}
    kept = 0
    for answer in answers:
        text = [words[token] for token in answer.output]
        announced = text[3] if len(text) > 3 else ""
        of = [index for index, word in enumerate(text) if word == "of"]
        parts = [text[index - 1] for index in of]
        kept += bool(parts) and parts[-1] == announced and text[of[0] + 1] == announced
    assert kept >= 0.8 * len(answers)


def test_the_tokenizer_is_the_one_the_model_was_trained_with() -> None:
    loaded = AutoTokenizer.from_pretrained(demo_model_dir())
    assert dict(loaded.get_vocab()) == token_ids()


def test_the_predictor_was_trained_for_this_model() -> None:
    artefact.check_model(artefact.read_manifest(demo_predictor_dir()), demo_model_dir())


def test_the_refined_probe_beats_the_prompt_predictor_on_fresh_answers(
    model: Any, answers: list[sampling.Sample]
) -> None:
    predictor = artefact.load(demo_predictor_dir())
    assert predictor.prompt is not None
    ended = [answer for answer in answers if answer.ended]
    recorded = sampling.hidden_states(model, ended, (predictor.probe.layer,))[predictor.probe.layer]
    refiner = Refiner(predictor.probe.bins, predictor.manifest.decoding)
    prompt_tokens = refiner.point(predictor.prompt.predict([a.prompt for a in ended]))
    errors = evaluate_sequences(
        recorded,
        predictor.probe,
        decoding=predictor.manifest.decoding,
        constant_tokens=float(np.median(recorded.remaining)),
        prompt_tokens=prompt_tokens,
    )
    assert errors["mae_refined_tokens"] < 0.6 * errors["mae_prompt_tokens"]
    assert errors["mae_prompt_tokens"] < errors["mae_constant_tokens"]


def test_the_training_log_ends_with_the_declared_run(declared: dict[str, Any]) -> None:
    log = [json.loads(line) for line in (DATA / "training_log.jsonl").read_text().splitlines()]
    assert log[0]["train"] == declared["build"]["train"]
    assert log[-1]["step"] == declared["build"]["train"]["steps"]
    assert log[-1]["loss"] < 0.3 * log[1]["loss"]
