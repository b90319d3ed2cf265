"""Predictors by their names on the command line, and the files that measured ones are read from."""

import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from trail.policy.gittins import gittins_index
from trail.simulation.engine.predictors import Confusion, Exact, Lognormal, Predictor, Recorded

_HELP = "exact, lognormal:SIGMA_INITIAL,SIGMA,CORRELATION, confusion:FILE.json or recorded:FILE.npz"


class PredictorError(ValueError):
    """A predictor that cannot be used; the message says where and what to do."""


def parse_predictor(text: str) -> Predictor:
    """The predictor that a text stands for. Raises PredictorError."""
    kind, _, detail = text.partition(":")
    try:
        if kind == "exact" and not detail:
            return Exact()
        if kind == "lognormal":
            return Lognormal(*(float(part) for part in detail.split(","))) if detail else Lognormal()
        if kind == "confusion" and detail:
            return read_confusion(Path(detail))
        if kind == "recorded" and detail:
            return read_recorded(Path(detail))
    except PredictorError:
        raise
    except (TypeError, ValueError) as e:
        raise PredictorError(f"--predictor {text!r}: {e}; write {_HELP}") from e
    raise PredictorError(f"--predictor {text!r}: write {_HELP}")


def read_confusion(path: Path) -> Confusion:
    """A JSON object, or its part `confusion`, with `edges` [k + 1], `initial` and `refined` [k][k].

    Rows are true bins, columns what was said; counts or shares. `correlation` may be given. Raises
    PredictorError.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content = content.get("confusion", content)
        return Confusion(
            tuple(float(v) for v in content["edges"]),
            tuple(tuple(float(v) for v in row) for row in content["initial"]),
            tuple(tuple(float(v) for v in row) for row in content["refined"]),
            float(content.get("correlation", 0.9)),
            path.name,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise PredictorError(
            f"{path}: no confusion matrices ({type(e).__name__}: {e}); it needs edges, initial and refined"
        ) from e


def read_recorded(path: Path) -> Recorded:
    """Predictions along real answers, from an .npz of `m` answers:

    | array | what |
    |---|---|
    | `every` | tokens between two predictions of an answer, the first at age 0 |
    | `output_tokens` [m] | lengths |
    | `initial` [m] | predicted length before the answer |
    | `refined` [sum of (length - 1) // every + 1] | predicted remaining tokens, answer after answer |
    | `posterior` [as refined, k], `edges` [k + 1] | optional: the distribution behind them |

    Raises PredictorError.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            every = int(file["every"])
            output = np.asarray(file["output_tokens"], np.int64)
            initial = np.asarray(file["initial"], np.float64)
            refined = np.asarray(file["refined"], np.float32)
            index = np.full(len(refined), np.nan, np.float32)
            if "posterior" in file:
                index = gittins_index(file["posterior"], file["edges"]).astype(np.float32)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as e:
        raise PredictorError(f"{path}: no recorded predictions ({type(e).__name__}: {e})") from e
    if every < 1 or not len(output) or output.min() < 1 or len(initial) != len(output):
        raise PredictorError(f"{path}: every, output_tokens and initial do not fit together")
    counts = (output - 1) // every + 1
    if len(refined) != int(counts.sum()) or len(index) != len(refined):
        raise PredictorError(
            f"{path}: refined holds {len(refined)} predictions, the lengths ask for {int(counts.sum())}"
        )
    order = np.argsort(output, kind="stable")
    first = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)[:-1]))
    row = np.concatenate([np.arange(first[i], first[i] + counts[i]) for i in order])
    return Recorded(path.name, every, output[order], initial[order], refined[row], index[row])
