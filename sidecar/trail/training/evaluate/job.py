"""One evaluation of one artefact: what is read, trained beside it, and drawn."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trail.predict import artefact
from trail.predict.manifest import ArtefactError, Manifest
from trail.predict.training.recipes import DEFAULT, TRAIL_PAPER, Recipe
from trail.report.stages import Stages
from trail.training.evaluate.arms import ARMS, Predictor
from trail.training.evaluate.draw import draw, stop_tokens
from trail.training.evaluate.evaluation import Pair, evaluate, held_out_set
from trail.training.evaluate.floor import Floor, choose_steps, estimate
from trail.training.evaluate.predictions import PREDICTIONS_FILE, write_predictions
from trail.training.evaluate.speed import measure_speed
from trail.training.fitting import Corpus, Split, fit
from trail.training.recording import Recording
from trail.training.train.job import recorded_corpus
from trail.training.train.lengths import Lengths, read_lengths


@dataclass(frozen=True)
class EvaluationJob:
    """What `trail evaluate` was asked. `model` is None without a floor; `text_model` reads the texts in files
    of lengths, where it was named."""

    predictor: Path
    recording: Path
    training: Path
    model: Path | None
    text_model: Path | None
    steps: int
    continuations: int
    speed: bool
    seed: int
    out: Path
    command: str

    def run(self, stages: Stages) -> dict[str, Any]:
        """The document; what the simulator reads of the predictor is written beside it.

        Raises RecordingError, PromptFileError, SetupError, ArtefactError, DrawError, ValueError.
        """
        judged = artefact.load(self.predictor)
        manifest = judged.manifest
        trained = self._answers("--training", self.training, manifest)
        test = self._answers("--recording", self.recording, manifest)
        corpus = trained.corpus
        if corpus.sha256 != manifest.training_data_sha256:
            raise ArtefactError(
                f"{self.predictor} was not trained on {self.training}; give the recording it was trained on"
            )
        default = Predictor.of_artefact(judged)
        paper = None if judged.probe is None else fit_paper(corpus, self.seed, stages, manifest.layer)
        pair = Pair(self.seed, default, paper, _split(corpus, manifest))
        excluded = set() if corpus.sha256 == test.corpus.sha256 else set(corpus.prompts)
        layers = [predictor.layer for predictor in (default, paper) if predictor is not None]
        answers, kind_names, left_out = held_out_set(test.corpus, layers, excluded, test.kinds)
        floor = (
            None
            if self.model is None
            else draw_floor(
                self.model,
                test.corpus,
                steps=self.steps,
                continuations=self.continuations,
                seed=self.seed,
                out=self.out,
                stages=stages,
            )
        )
        with stages.stage("judging", len(ARMS)) as advance:
            document = evaluate(
                answers,
                corpus,
                [pair],
                names={"model": manifest.model_id, "predictor": str(self.predictor), "command": self.command},
                kinds=kind_names,
                floor=floor,
                layers={
                    int(k): float(v)
                    for k, v in (manifest.metrics.get("layer_trial_mae_refined_tokens") or {}).items()
                },
                extra={
                    "speed": measure_speed(judged.probe) if self.speed and judged.probe is not None else None,
                    "step_ms": None,
                },
                advance=advance,
            )
        document["test"].update(left_out)
        document["confusion"] = write_predictions(self.out / PREDICTIONS_FILE, answers, default)
        return document

    def _answers(self, option: str, path: Path, manifest: Manifest) -> Lengths:
        """What was recorded or noted down at `path`, for a predictor of that manifest."""
        if path.is_file():
            if manifest.layer is not None:
                raise ArtefactError(
                    f"{option} {path} is a file of lengths, and {self.predictor} reads hidden states; give a"
                    " recording"
                )
            return read_lengths(path, manifest.architecture, self.text_model)
        recording = Recording.open(path)
        if recording.model.architecture_fingerprint != manifest.model_fingerprint:
            raise ArtefactError(
                f"{option} was recorded from {recording.model_id}, the predictor was trained for"
                f" {manifest.model_id}; give recordings of that model"
            )
        corpus = recorded_corpus(recording, recording.layers)
        if manifest.layer is None:
            corpus = Corpus.of_lengths(
                corpus.prompts,
                corpus.lengths,
                corpus.censored,
                vocab_size=corpus.vocab_size,
                sha256=corpus.sha256,
            )
        kinds = None
        if recording.kinds is not None:
            kinds = [recording.kinds[i] for i in recording.requests.prompt_index]
        return Lengths(corpus, kinds)


def _split(corpus: Corpus, manifest: Manifest) -> Split:
    """The split that `trail train` made, from what the artefact remembers of it."""
    made = manifest.recipe
    recipe = dataclasses.replace(DEFAULT, held_out=made["held_out"], validation=made["validation"])
    return Split.of(corpus.prompts, recipe, int(made["probe"]["seed"]))


def paper_recipe(seed: int) -> Recipe:
    """The paper's, whose prompt predictor is not compared."""
    return dataclasses.replace(TRAIL_PAPER, prompt=None).seeded(seed)


def fit_paper(corpus: Corpus, seed: int, stages: Stages, layer: int | None) -> Predictor:
    """The paper's recipe on `corpus`; at `layer`, or at the one that its own trial finds."""
    layers = corpus.layers if layer is None else (layer,)
    return Predictor.of(fit(dataclasses.replace(corpus, layers=layers), paper_recipe(seed), seed, stages))


def draw_floor(
    model: Path, test: Corpus, *, steps: int, continuations: int, seed: int, out: Path, stages: Stages
) -> Floor:
    """The floor over decode steps of fresh answers to the test prompts (recordings keep no output tokens).

    Answers and continuations that the context or the limit cuts are left out, as they are from the test. What
    was drawn stays in `out` and is taken from there when the same is asked again.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    context = int(config["max_position_embeddings"])
    stop = stop_tokens(model)
    limit = int(test.lengths.max())
    prompts = sorted(set(test.prompts))

    def left(tokens: tuple[int, ...], generated: int) -> int:
        return max(1, min(limit - generated, context - len(tokens)))

    options: dict[str, Any] = {"max_model_len": context, "stop_token_ids": stop, "log": out / "vllm.log"}
    with stages.stage("answers to draw from", len(prompts)) as advance:
        answers = draw(
            model,
            prompts,
            n=1,
            max_tokens=[left(p, 0) for p in prompts],
            seed=seed,
            keep_tokens=True,
            cached=out / "floor-answers.npz",
            progress=_by_difference(advance),
            **options,
        )
    outputs = answers.outputs()
    ended = np.flatnonzero(answers.ended[:, 0])
    chosen = choose_steps([prompts[i] for i in ended], [outputs[i] for i in ended], steps, seed)
    with stages.stage("continuations", len(chosen)) as advance:
        drawn = draw(
            model,
            [step.tokens for step in chosen],
            n=continuations,
            max_tokens=[left(step.tokens, step.age) for step in chosen],
            seed=seed + 1_000_000,
            cached=out / "floor-continuations.npz",
            progress=_by_difference(advance),
            **options,
        )
    return estimate([lengths[done] for lengths, done in zip(drawn.lengths, drawn.ended, strict=True)])


def _by_difference(advance: Any) -> Any:
    done = 0

    def told(now: int) -> None:
        nonlocal done
        advance(now - done)
        done = now

    return told
