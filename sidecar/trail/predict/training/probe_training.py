"""Training of the probe (TRAIL, arXiv 2410.01035, section 3.1).

Deterministic on CPU for a given seed and number of torch threads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from trail.predict.bins import Bins
from trail.predict.probe import HIDDEN_UNITS, POSITION_WEIGHT, WEIGHT_NAMES, Probe, position_inputs
from trail.predict.training.epochs import Batches, Epochs, Progress
from trail.predict.training.likelihood import surprise
from trail.predict.training.parts import Parts

_CHUNK_ROWS = 8192
_IN_MEMORY_BYTES = 2 << 30
"""Inputs up to this size are standardised once and kept; larger ones are read a batch at a time."""


@dataclass(frozen=True)
class ProbeRecipe:
    """The paper's recipe; a larger batch trains faster on CPU.

    `position`: ages and prompt lengths are inputs. `patience`: epochs without a better validation loss after
    which training ends, with the best epoch's weights; 0 trains all epochs and keeps the last.
    """

    hidden_units: int = HIDDEN_UNITS
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 0.01
    weight_decay: float = 0.01
    position: bool = False
    patience: int = 0
    seed: int = 0


@dataclass(frozen=True)
class ProbeRows:
    """What a probe is trained and judged on: hidden states and the truth at them, one row a step.

    `vectors` float [n, H], may be memory-mapped: rows are gathered a batch at a time. `remaining` [n]: tokens
    still to come; where `censored` bool [n] is set, the answer was cut and at least so many were.
    `ages` and `prompt_tokens` [n] are read where the recipe takes position. Raises ValueError for shapes that
    do not fit together.
    """

    vectors: npt.NDArray[np.floating]
    remaining: npt.NDArray[np.number]
    ages: npt.NDArray[np.integer] | None = None
    prompt_tokens: npt.NDArray[np.integer] | None = None
    censored: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2:
            raise ValueError(f"vectors must be [n, H], got {list(self.vectors.shape)}")
        n = len(self.vectors)
        for name in ("remaining", "ages", "prompt_tokens", "censored"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise ValueError(f"{n} rows need {n} values of {name}, got {len(column)}")

    def __len__(self) -> int:
        return len(self.remaining)

    def chosen(self, mask: npt.NDArray[np.bool_]) -> "ProbeRows":
        """The rows where `mask` bool [n] is set; their vectors are copied."""
        rows = np.flatnonzero(mask)

        def of(column: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
            return None if column is None else column[rows]

        return ProbeRows(
            self.vectors[rows], self.remaining[rows], of(self.ages), of(self.prompt_tokens), of(self.censored)
        )

    def position(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Position inputs of `rows`. Raises ValueError where the columns are missing."""
        if self.ages is None or self.prompt_tokens is None:
            raise ValueError("a probe that reads position is trained with ages and prompt_tokens")
        return position_inputs(self.ages[rows], self.prompt_tokens[rows])


@dataclass(frozen=True)
class TrainedProbe:
    """`metrics` are on held-out rows: rows, mae_tokens, bin_accuracy, and mae_constant_tokens of the
    training rows' median; `training_loss` has one value an epoch, `validation_loss` too where there are
    validation rows."""

    probe: Probe
    metrics: dict[str, float]
    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)


def train_probe(
    data: ProbeRows,
    held_out: npt.NDArray[np.bool_],
    *,
    bins: Bins,
    layer: int,
    recipe: ProbeRecipe | None = None,
    validation: npt.NDArray[np.bool_] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> TrainedProbe:
    """Train a probe on the rows of `data` that are neither `held_out` nor `validation`, bool [n] each.

    Take both from `held_out_prompts`, so that a request's rows stay together. The likelihood of a censored
    row is that of all above it (`likelihood`). The inputs are standardised while training and the scaling is
    folded into the first layer, so the learning rate suits models whatever the scale of their hidden states.
    Raises ValueError for shapes that do not fit, no training row, or a loss that is not finite.
    """
    recipe = recipe or ProbeRecipe()
    parts = Parts.of(len(data), data.remaining, held_out, validation, bins)
    censored = np.zeros(len(data), dtype=np.bool_) if data.censored is None else data.censored
    inputs = _Inputs(data, parts.train, recipe.position)
    start = Probe.untrained(
        data.vectors.shape[1],
        bins,
        layer,
        units=recipe.hidden_units,
        position=recipe.position,
        seed=recipe.seed,
    )
    arrays = [start.weights[name] for name in WEIGHT_NAMES]
    if recipe.position:
        arrays[0] = np.concatenate([arrays[0], start.weights[POSITION_WEIGHT]], axis=1)
    weights = [torch.from_numpy(array.copy()).to(device).requires_grad_() for array in arrays]
    # Fused: of a step on 32 rows the plain one takes a third, in a dozen small operations a weight.
    optimizer = torch.optim.AdamW(
        weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )

    def loss_of(rows: npt.NDArray[np.int64]) -> torch.Tensor:
        batch = torch.from_numpy(inputs.standardised(rows)).to(device)
        logits = F.linear(F.linear(batch, weights[0], weights[1]).relu(), weights[2], weights[3])
        return surprise(logits, parts.labels[rows], parts.beyond[rows], censored[rows])

    fit = Epochs(
        optimizer,
        Batches(parts.train, recipe.batch_size, recipe.epochs, recipe.seed),
        loss_of,
        validation=parts.validation,
        patience=recipe.patience,
    )
    fit.run(progress)

    final = [tensor.detach().cpu().numpy() for tensor in weights]
    probe = Probe(inputs.folded(final), bins, layer)
    probabilities = predict_rows(probe, data, parts.test)
    metrics = parts.metrics(probabilities, data.remaining, bins)
    return TrainedProbe(probe, metrics, fit.training_loss, fit.validation_loss)


def predict_rows(
    probe: Probe, data: ProbeRows, rows: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.float32]:
    """The probe's probabilities float32 [m, k] at `rows` of `data` (all of them by default)."""
    chosen = np.arange(len(data)) if rows is None else rows
    result = np.empty((len(chosen), probe.bins.k), dtype=np.float32)
    for begin in range(0, len(chosen), _CHUNK_ROWS):
        part = chosen[begin : begin + _CHUNK_ROWS]
        ages = None if data.ages is None else data.ages[part]
        prompt_tokens = None if data.prompt_tokens is None else data.prompt_tokens[part]
        result[begin : begin + len(part)] = probe.predict(np.asarray(data.vectors[part]), ages, prompt_tokens)
    return result


class _Inputs:
    """The probe's standardised inputs, gathered a batch at a time, and the way back to raw ones."""

    def __init__(self, data: ProbeRows, train: npt.NDArray[np.int64], position: bool) -> None:
        self._data, self._position = data, position
        self._mean, self._scale = _moments(self._raw, train)
        self._whole: npt.NDArray[np.float32] | None = None
        if len(data) * len(self._mean) * 4 <= _IN_MEMORY_BYTES:
            self._whole = self.standardised(np.arange(len(data)))

    def _raw(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        vectors = np.asarray(self._data.vectors[rows], dtype=np.float32)
        return np.concatenate([vectors, self._data.position(rows)], axis=1) if self._position else vectors

    def standardised(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if self._whole is not None:
            return self._whole[rows]
        return (self._raw(rows) - self._mean) / self._scale

    def folded(self, weights: list[npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.float32]]:
        """Weights of the probe on raw inputs from those on standardised ones."""
        first, bias, output, output_bias = weights
        first = first / self._scale
        # Sums over H terms of the mean's size would cost float32 the small differences that matter.
        shift = first.astype(np.float64) @ self._mean.astype(np.float64)
        hidden_size = self._data.vectors.shape[1]
        arrays = (first[:, :hidden_size], (bias - shift).astype(np.float32), output, output_bias)
        named = dict(zip(WEIGHT_NAMES, arrays, strict=True))
        if self._position:
            named[POSITION_WEIGHT] = first[:, hidden_size:]
        return named


def _moments(
    read: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and scale float32 [inputs] of the training rows, read in chunks."""
    total, squares = 0.0, 0.0
    for chosen in _chunks(rows):
        total = total + read(chosen).astype(np.float64).sum(axis=0)
    mean = np.asarray(total / len(rows))
    for chosen in _chunks(rows):
        squares = squares + np.square(read(chosen).astype(np.float64) - mean).sum(axis=0)
    scale = np.sqrt(squares / len(rows))
    # A dimension that hardly varies would be blown up into noise.
    floor = 1e-3 * float(scale.mean())
    return mean.astype(np.float32), np.maximum(scale, floor if floor > 0 else 1.0).astype(np.float32)


def _chunks(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for begin in range(0, len(rows), _CHUNK_ROWS):
        yield rows[begin : begin + _CHUNK_ROWS]
