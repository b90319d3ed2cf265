"""Training of the probe and of the prompt predictor (TRAIL, arXiv 2410.01035).

Deterministic on CPU for a given seed and number of torch threads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from trail.predict.bins import Bins
from trail.predict.encoder import BASE, EncoderSize
from trail.predict.epochs import Batches, Epochs, Progress
from trail.predict.likelihood import log_beyond, share_beyond, surprise
from trail.predict.probe import HIDDEN_UNITS, POSITION_WEIGHT, WEIGHT_NAMES, Probe, position_inputs

if TYPE_CHECKING:  # training a probe alone needs no transformers
    from trail.predict.prompt import PromptPredictor

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
class PromptRecipe:
    """Training of an encoder: AdamW, warm-up, cosine to 0; `patience` as above.

    `encoder` is the size of one that starts from random weights, or the name of a checkpoint (a directory or
    of the Hugging Face hub), which takes a learning rate of a tenth.
    """

    encoder: EncoderSize | str = BASE
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    warmup_share: float = 0.05
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


@dataclass(frozen=True)
class TrainedPromptPredictor:
    """`metrics` as in TrainedProbe, of the whole output length on held-out prompts."""

    predictor: "PromptPredictor"
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
    parts = _Parts.of(len(data), data.remaining, held_out, validation, bins)
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
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

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
    metrics = _metrics(probabilities, data.remaining[parts.test], parts.median(data.remaining), bins)
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


def train_prompt_predictor(
    prompts: Sequence[Sequence[int]],
    lengths: npt.NDArray[np.number],
    held_out: npt.NDArray[np.bool_],
    *,
    bins: Bins,
    vocab_size: int,
    recipe: PromptRecipe | None = None,
    censored: npt.NDArray[np.bool_] | None = None,
    validation: npt.NDArray[np.bool_] | None = None,
    model_tokenizer: Path | None = None,
    progress: Progress | None = None,
) -> TrainedPromptPredictor:
    """Train an encoder on n prompts (token ids) and the whole output lengths [n] in tokens.

    A checkpoint reads text: `model_tokenizer` (a `tokenizer.json`) makes it from the model's tokens.
    `held_out`, `validation` and `censored` as for `train_probe`. A prompt may occur several times, once an
    answer: it is read once an epoch, against all its answers. Raises ValueError as `train_probe` does, and
    OSError or ValueError for a checkpoint that cannot be used.
    """
    from trail.predict.prompt import PromptPredictor

    recipe = recipe or PromptRecipe()
    parts = _Parts.of(len(prompts), lengths, held_out, validation, bins)
    answers = _Answers.of(prompts, parts, censored, bins.k)
    if isinstance(recipe.encoder, EncoderSize):
        predictor = PromptPredictor.untrained(vocab_size, bins, recipe.encoder, seed=recipe.seed)
    elif model_tokenizer is None:
        raise ValueError(f"the encoder {recipe.encoder} reads text: give the served model's tokenizer.json")
    else:
        predictor = PromptPredictor.pretrained(recipe.encoder, model_tokenizer, bins, seed=recipe.seed)
    optimizer = torch.optim.AdamW(
        predictor.encoder.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )

    def loss_of(rows: npt.NDArray[np.int64]) -> torch.Tensor:
        return answers.loss(predictor.logits([answers.prompts[row] for row in rows]), rows)

    with torch.random.fork_rng(devices=[]):  # dropout draws from torch's global generator
        torch.manual_seed(recipe.seed)
        predictor.encoder.train()
        fit = Epochs(
            optimizer,
            Batches(answers.train, recipe.batch_size, recipe.epochs, recipe.seed),
            loss_of,
            validation=answers.validation,
            patience=recipe.patience,
            warmup_share=recipe.warmup_share,
            mode=predictor.encoder.train,
        )
        fit.run(progress)
    predictor.encoder.eval()
    probabilities = predictor.predict([prompts[row] for row in parts.test])
    metrics = _metrics(probabilities, lengths[parts.test], parts.median(lengths), bins)
    return TrainedPromptPredictor(predictor, metrics, fit.training_loss, fit.validation_loss)


@dataclass(frozen=True)
class _Parts:
    """Bin of every row, its part above the row's length, and the rows to train on, stop by, and judge on."""

    labels: npt.NDArray[np.int64]
    beyond: npt.NDArray[np.float32]
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        n: int,
        lengths: npt.NDArray[np.number],
        held_out: npt.NDArray[np.bool_],
        validation: npt.NDArray[np.bool_] | None,
        bins: Bins,
    ) -> "_Parts":
        stopping = np.zeros(n, dtype=np.bool_) if validation is None else validation
        for name, mask in (("held_out", held_out), ("validation", stopping)):
            if len(lengths) != n or mask.shape != (n,) or mask.dtype != np.bool_:
                raise ValueError(
                    f"{n} rows need {n} lengths and {name} as bool [{n}], got {len(lengths)} lengths and"
                    f" {mask.dtype} {list(mask.shape)}"
                )
        train = np.flatnonzero(~held_out & ~stopping)
        if len(train) == 0:
            raise ValueError("every row is held out; nothing is left to train on")
        return cls(
            bins.index(lengths),
            share_beyond(bins, lengths),
            train,
            np.flatnonzero(stopping & ~held_out),
            np.flatnonzero(held_out),
        )

    def median(self, lengths: npt.NDArray[np.number]) -> float:
        return float(np.median(lengths[self.train]))


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


@dataclass(frozen=True)
class _Answers:
    """Distinct prompts and what came of each: answers per bin, float32 [m, k], ended and cut ones.

    `beyond` float32 [m, k] is the mean part of the bin above the lengths of the cut ones in it, which is
    every one's where all were cut at one limit.
    """

    prompts: list[tuple[int, ...]]
    ended: torch.Tensor
    cut: torch.Tensor
    beyond: torch.Tensor
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        prompts: Sequence[Sequence[int]],
        parts: _Parts,
        censored: npt.NDArray[np.bool_] | None,
        k: int,
    ) -> "_Answers":
        index: dict[tuple[int, ...], int] = {}
        row_of = np.array([index.setdefault(tuple(prompt), len(index)) for prompt in prompts])
        counts = np.zeros((2, len(index), k), dtype=np.float32)
        shares = np.zeros((2, len(index), k), dtype=np.float32)
        kind = np.zeros(len(prompts), dtype=np.int64) if censored is None else censored.astype(np.int64)
        for rows in (parts.train, parts.validation):
            np.add.at(counts, (kind[rows], row_of[rows], parts.labels[rows]), 1.0)
            np.add.at(shares, (kind[rows], row_of[rows], parts.labels[rows]), parts.beyond[rows])
        return cls(
            list(index),
            torch.from_numpy(counts[0]),
            torch.from_numpy(counts[1]),
            torch.from_numpy(shares[1] / np.maximum(counts[1], 1.0)),
            np.unique(row_of[parts.train]),
            np.unique(row_of[parts.validation]),
        )

    def loss(self, logits: torch.Tensor, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Mean negative log likelihood of the answers to prompts `rows`."""
        log_p = F.log_softmax(logits, dim=1)
        ended, cut = self.ended[rows], self.cut[rows]
        total = (ended * log_p).sum() + (cut * log_beyond(log_p, self.beyond[rows])).sum()
        return -total / (ended.sum() + cut.sum())


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


def _metrics(
    probabilities: npt.NDArray[np.float32], actual: npt.NDArray[np.number], constant: float, bins: Bins
) -> dict[str, float]:
    """What TrainedProbe says of held-out rows of `actual` lengths; only `rows` where there are none."""
    if len(actual) == 0:
        return {"rows": 0.0}
    predicted = probabilities.astype(np.float64) @ bins.midpoints
    return {
        "rows": float(len(actual)),
        "mae_tokens": float(np.mean(np.abs(predicted - actual))),
        "bin_accuracy": float(np.mean(probabilities.argmax(axis=1) == bins.index(actual))),
        "mae_constant_tokens": float(np.mean(np.abs(constant - actual))),
    }
