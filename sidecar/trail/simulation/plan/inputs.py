"""What `trail plan` is told of predictions: texts and files to a joint law of length and prediction."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trail.simulation.plan.mg1 import JointLaw, binned_law, exact_law, joint_law, lognormal_law
from trail.simulation.plan.tables import TableError, read_columns

_POINTS = 32
"""Values of a lognormal error; twice as many move mean response times by less than 0.1 %."""

PREDICTIONS_HELP = (
    "exact; lognormal:SIGMA (error factor of median 1); confusion:FILE (JSON with `edges` and `counts`,"
    " rows the true bin, or an evaluation.json of trail evaluate); column:NAME or class:NAME of the CSV"
    " given by --lengths (a predicted number of tokens, or a class, which stands for its mean length)"
)


def predicted_law(text: str, lengths: NDArray[np.float64], file: Path, arm: str | None = None) -> JointLaw:
    """The joint law in tokens of lengths [n] read from `file`, with predictions as `text` says.

    `arm` names the predictor of an evaluation. Raises ValueError (TableError for files) saying what to write.
    """
    kind, _, detail = text.partition(":")
    if kind == "exact" and not detail:
        return exact_law(lengths)
    if kind == "lognormal" and detail:
        return lognormal_law(lengths, _sigma(text, detail), points=_POINTS)
    if kind == "confusion" and detail:
        edges, counts = read_confusion(Path(detail), arm)
        return binned_law(lengths, edges, counts)
    if kind in ("column", "class") and detail:
        said = read_columns(file, detail)
        if said.shape != (len(lengths), 1):
            raise TableError(
                f"{file}: {detail!r} gives {said.size} predictions for {len(lengths)} lengths; name one"
                " column"
            )
        return joint_law(lengths, said[:, 0] if kind == "column" else class_means(lengths, said[:, 0]))
    raise ValueError(f"--predictions {text!r}: write one of {PREDICTIONS_HELP}")


def class_means(lengths: NDArray[np.float64], said: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean length of everything in the same class, float64 [n]."""
    _, index = np.unique(said, return_inverse=True)
    index = index.reshape(-1)
    means = np.bincount(index, weights=lengths) / np.bincount(index)
    return np.asarray(means[index], dtype=np.float64)


def read_confusion(path: Path, arm: str | None = None) -> tuple[list[float], list[list[float]]]:
    """Bin edges [k + 1] and counts [k][k], rows the true bin, of a JSON file. Raises TableError.

    Of an evaluation it is the heat map of `arm` (by default `prompt-countdown`, else the first): remaining
    lengths at all steps of the answers, which is as near as an evaluation comes to predictions before the
    first token.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise TableError(f"{path}: cannot be read as JSON ({e})") from e
    if isinstance(content, Mapping) and "arms" in content:
        return _heat_map(path, content["arms"], arm)
    try:
        return [float(v) for v in content["edges"]], [[float(v) for v in row] for row in content["counts"]]
    except (KeyError, TypeError, ValueError):
        raise TableError(
            f"{path}: needs `edges` (k + 1 numbers) and `counts` (k rows of k numbers)"
        ) from None


def _heat_map(path: Path, arms: Mapping[str, Any], arm: str | None) -> tuple[list[float], list[list[float]]]:
    usable = [name for name, judged in arms.items() if isinstance(judged, Mapping) and "heatmap" in judged]
    if not usable:
        raise TableError(f"{path}: no arm with a heat map in it; give an evaluation.json of trail evaluate")
    chosen = arm or ("prompt-countdown" if "prompt-countdown" in usable else usable[0])
    if chosen not in usable:
        raise TableError(f"{path}: no arm {chosen!r} in it; choose one of {', '.join(usable)}")
    counts = arms[chosen]["heatmap"]["counts"]
    edges = np.linspace(0.0, arms[chosen]["heatmap"]["max_tokens"], len(counts) + 1)
    return edges.tolist(), counts


def _sigma(text: str, detail: str) -> float:
    try:
        sigma = float(detail)
    except ValueError:
        sigma = math.nan
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"--predictions {text!r}: sigma must be a positive number, as in lognormal:0.6")
    return sigma
