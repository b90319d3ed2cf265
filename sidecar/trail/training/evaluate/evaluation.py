"""The comparison of predictors on one test set: everything `evaluation.json` and the report say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from trail.predict.training.evaluation import Sequences
from trail.predict.training.metrics import paired_difference
from trail.training.evaluate.arms import ARMS, HeldOutSet, Predictor, forecasts
from trail.training.evaluate.floor import Floor
from trail.training.evaluate.judging import judge_arm
from trail.training.fitting import Corpus, Split

DEFAULT, PAPER = "default", "trail-paper-refined"
_COMPARED = (
    (DEFAULT, PAPER),
    (DEFAULT, "prompt-countdown"),
    (DEFAULT, "position"),
    (PAPER, "trail-paper-raw"),
    ("prompt-countdown", "position"),
)
_SEEDED = ("mae", "coverage80", "ece")


@dataclass(frozen=True)
class Pair:
    """The predictor that is judged and the paper's, trained on the same answers with one seed.

    Without hidden states there is no paper's.
    """

    seed: int
    default: Predictor
    paper: Predictor | None
    split: Split
    """Of the training answers, by which `default` was trained."""


def evaluate(
    test: HeldOutSet,
    training: Corpus,
    pairs: Sequence[Pair],
    *,
    names: dict[str, str],
    kinds: Sequence[str] = (),
    floor: Floor | None = None,
    layers: dict[int, float] | None = None,
    extra: dict[str, Any] | None = None,
    advance: Callable[[int], None] = lambda _done: None,
) -> dict[str, Any]:
    """The document for `report.render`. Details are the first pair's; every pair's MAE stands beside.

    `names` holds `model`, `predictor` and `command`. Raises ValueError where there is nothing to judge on.
    """
    rows = test.rows()
    arms: dict[str, dict[str, Any]] = {}
    differences: dict[str, dict[str, float | None]] = {}
    seeds: dict[str, dict[str, list[float]]] = {}
    for number, pair in enumerate(pairs):
        fit = ~pair.split.held_out
        sequences = training.sequences(pair.default.layer)
        chosen = sequences.per_row(fit)
        data = sequences.rows().chosen(chosen)
        validation = sequences.per_row(pair.split.validation)[chosen]
        said = forecasts(test, data, validation, pair.default, pair.paper)
        for name in ARMS:
            if name not in said:
                continue
            result = judge_arm(rows, said[name], kinds=kinds, seed=0, resamples=1000 if number == 0 else 2)
            for figure in _SEEDED:
                if result[figure] is not None:
                    seeds.setdefault(name, {}).setdefault(f"{figure}_seeds", []).append(result[figure])
            if number == 0:
                arms[name] = result
            advance(1)
        if number == 0:
            differences = {
                f"{a} against {b}": paired_difference(rows, said[a], said[b])
                for a, b in _COMPARED
                if a in said and b in said
            }
    for name, figures in seeds.items():
        arms[name].update(figures)
    of = test.any_layer
    return {
        **names,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "test": {
            "prompts": len(test.prompts),
            "requests": len(of.lengths),
            "rows": len(rows.remaining),
            "mean_output_tokens": float(of.lengths.mean()),
        },
        "seeds": [pair.seed for pair in pairs],
        "arms": arms,
        "differences": differences,
        "floor": asdict(floor) if floor is not None else None,
        "layers": {str(k): {"mae": mae} for k, mae in layers.items()} if layers else None,
        "training": {"requests": len(training.lengths), "prompts": len(set(training.prompts))},
        **(extra or {}),
    }


def held_out_set(
    corpus: Corpus, layers: Sequence[int], excluded: set[tuple[int, ...]], kinds: Sequence[str] | None = None
) -> tuple[HeldOutSet, list[str], dict[str, int]]:
    """The answers of `corpus` that can be judged on, the kinds of their prompts, and what was left out.

    Left out are answers that were cut, whose length is not known, and prompts that are among `excluded`.
    `kinds` [n] names the kind of every answer's prompt.
    """
    seen = np.array([tuple(prompt) in excluded for prompt in corpus.prompts], dtype=np.bool_)
    kept = ~seen & ~corpus.censored
    left_out = {
        "censored_left_out": int((corpus.censored & ~seen).sum()),
        "trained_on_left_out": int(seen.sum()),
    }
    if not kept.any():
        raise ValueError(
            f"no answer is left to judge on: {left_out['trained_on_left_out']} belong to prompts that were"
            f" trained on, {left_out['censored_left_out']} were cut; record other prompts"
        )
    chosen = corpus.chosen(kept)
    index: dict[tuple[int, ...], int] = {}
    prompt_index = np.array([index.setdefault(tuple(p), len(index)) for p in chosen.prompts], dtype=np.int64)
    kind, kind_names = None, []
    if kinds is not None:
        kind_names = sorted(set(kinds))
        kind = np.zeros(len(index), dtype=np.int64)
        kind[prompt_index] = [kind_names.index(kinds[i]) for i in np.flatnonzero(kept)]
    sequences: dict[int, Sequences] = {layer: chosen.sequences(layer) for layer in sorted(set(layers))}
    return HeldOutSet(list(index), prompt_index, sequences, kind), kind_names, left_out
