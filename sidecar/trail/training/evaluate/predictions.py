"""What a predictor said along real answers, in the two forms that `trail simulate --predictor` reads.

`recorded`: every prediction of every answer, with its distribution. `confusion`: how often what was said lay
in which bin when the truth lay in which, before an answer and along it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from trail.predict.bins import Bins
from trail.predict.refine import Refiner
from trail.predict.training.evaluation import follow
from trail.predict.training.probe_training import predict_rows
from trail.training.evaluate.arms import HeldOutSet, Predictor

PREDICTIONS_FILE = "predictions.npz"
LEAST_IN_BIN = 10
"""True values that a bin of the confusion matrices must hold; thinner ones join their neighbour."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def write_predictions(path: Path, test: HeldOutSet, predictor: Predictor) -> dict[str, Any] | None:
    """Write `path` as `simulation.predictor_files.read_recorded` describes it; the confusion matrices.

    None where the answers are too few for two bins, or their steps were not recorded at even distances. No
    limit is known to the predictor here, as none is known of the simulator's requests.
    """
    of = test.any_layer
    every = int(of.ages[1]) if len(of.ages) > 1 and of.ages[1] else 1
    initial, refined, posterior = _said(test, predictor)
    arrays: dict[str, Any] = {
        "every": np.int64(every),
        "output_tokens": of.lengths.astype(np.int64),
        "initial": initial,
        "refined": refined.astype(np.float32),
    }
    if posterior is not None:
        arrays |= {"posterior": posterior.astype(np.float16), "edges": np.asarray(predictor.bins.edges)}
    np.savez_compressed(path, **arrays)
    return confusion(
        predictor.bins,
        lengths=of.lengths.astype(np.int64),
        remaining=of.remaining,
        initial=initial,
        refined=refined,
        offsets=of.offsets.astype(np.int64),
    )


def _said(test: HeldOutSet, predictor: Predictor) -> tuple[Floats, Floats, npt.NDArray[np.floating] | None]:
    """Whole length of every answer before it [n], what remains at every row [N], and its distribution."""
    of = test.any_layer
    refiner = Refiner(predictor.bins, predictor.decoding)
    whole = None
    if predictor.prompt is not None:
        whole = refiner.point(predictor.prompt.predict(test.prompts))[test.prompt_index]
    if predictor.probe is None:
        if whole is None:
            raise ValueError("a predictor without a probe needs a prompt predictor")
        return whole, np.maximum(of.per_row(whole) - of.ages, 0.0), None
    sequences = test.sequences[predictor.layer]
    p = predict_rows(predictor.probe, sequences.rows())
    posterior = refiner.read(follow(sequences, p, refiner))
    refined = refiner.point(posterior)
    return (refined[sequences.offsets[:-1]] if whole is None else whole), refined, posterior


def confusion(
    bins: Bins, *, lengths: Ints, remaining: Ints, initial: Floats, refined: Floats, offsets: Ints
) -> dict[str, Any] | None:
    """Matrices over `bins` joined until each holds LEAST_IN_BIN true values; None for fewer than two.

    Of n answers `lengths` and what was said of them before, `initial` [n]; at their rows, of which answer i
    owns offsets[i] to offsets[i + 1], what remained and what was said of it, `refined` [N].
    `edges` [k + 1]; `initial` and `refined` [k][k] counts, rows the true bin; `correlation`: of what is said
    from one prediction of an answer to its next, as normal scores within the true bin's row.
    """
    edges = _joined(bins, lengths, remaining)
    if len(edges) < 3:
        return None
    before = _counts(lengths, initial, edges)
    along = _counts(remaining, refined, edges)
    return {
        "edges": edges.tolist(),
        "initial": before.tolist(),
        "refined": along.tolist(),
        "correlation": _correlation(remaining, refined, offsets, edges, along),
    }


def _joined(bins: Bins, *truths: Ints) -> Floats:
    """Edges of `bins` between which every one of `truths` has enough values; outer bins are open-ended."""
    counts = np.stack([np.bincount(bins.index(truth), minlength=bins.k) for truth in truths])
    kept, since = [0.0], np.zeros(len(truths))
    for i in range(bins.k):
        since += counts[:, i]
        if since.min() >= LEAST_IN_BIN:
            kept.append(float(bins.edges[i + 1]))
            since[:] = 0
    if len(kept) > 1:
        kept[-1] = float(bins.edges[-1])  # what is left over joins the last
    return np.asarray(kept)


def _bin(edges: Floats, values: npt.NDArray[np.floating] | Ints) -> Ints:
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2).astype(np.int64)


def _counts(truth: Ints, said: Floats, edges: Floats) -> Ints:
    k = len(edges) - 1
    counts = np.bincount(_bin(edges, truth) * k + _bin(edges, said), minlength=k * k)
    return counts.reshape(k, k).astype(np.int64)


def _correlation(remaining: Ints, said: Floats, offsets: Ints, edges: Floats, counts: Ints) -> float:
    """Between successive rows of an answer, of the normal scores of what was said; 0 where nothing varies."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    middle = np.cumsum(shares, axis=1) - shares / 2
    true_bin, said_bin = _bin(edges, remaining), _bin(edges, said)
    score = ndtri(np.clip(middle[true_bin, said_bin], 1e-6, 1 - 1e-6))
    follows = np.ones(len(score), dtype=np.bool_)
    follows[offsets[:-1]] = False
    at = np.flatnonzero(follows)
    if len(at) < 2 or not (score[at].std() and score[at - 1].std()):
        return 0.0
    return float(np.clip(np.corrcoef(score[at - 1], score[at])[0, 1], 0.0, 1.0))
