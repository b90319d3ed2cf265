"""Training of the probe and of the prompt predictor (TRAIL, arXiv 2410.01035).

Deterministic on CPU for a given seed and number of torch threads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from trail.predict.bins import Bins
from trail.predict.probe import HIDDEN_UNITS, WEIGHT_NAMES, Probe

if TYPE_CHECKING:  # training a probe alone needs no transformers
    from trail.predict.prompt import EncoderSize, PromptPredictor

Progress = Callable[[int, int, float], None]
"""Called after every epoch with epochs done, epochs in all, and the epoch's mean training loss."""

_CHUNK_ROWS = 8192


@dataclass(frozen=True)
class ProbeRecipe:
    """The paper's recipe; a larger batch trains faster on CPU."""

    hidden_units: int = HIDDEN_UNITS
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 0.01
    weight_decay: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class PromptRecipe:
    """Training of the encoder from random weights: AdamW, linear warm-up, cosine to 0."""

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    warmup_share: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class TrainedProbe:
    """`metrics` are on held-out rows: rows, mae_tokens, bin_accuracy, and mae_constant_tokens of the
    training rows' median; `training_loss` has one value an epoch."""

    probe: Probe
    metrics: dict[str, float]
    training_loss: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class TrainedPromptPredictor:
    """`metrics` as in TrainedProbe, of the whole output length on held-out prompts."""

    predictor: "PromptPredictor"
    metrics: dict[str, float]
    training_loss: list[float] = field(default_factory=list)


def train_probe(
    vectors: npt.NDArray[np.floating],
    remaining: npt.NDArray[np.number],
    held_out: npt.NDArray[np.bool_],
    *,
    bins: Bins,
    layer: int,
    recipe: ProbeRecipe | None = None,
    progress: Progress | None = None,
) -> TrainedProbe:
    """Train a probe on hidden states [n, H] and the remaining lengths [n] in tokens at them.

    `vectors` may be a memory-mapped array: rows are gathered a batch at a time. `held_out` bool [n]
    marks the rows that are judged on and not trained on; take it from `held_out_prompts`, so that a
    request's rows stay together.

    The inputs are standardised while training and the scaling is folded into the first layer, so the
    learning rate suits models whatever the scale of their hidden states. Raises ValueError for shapes
    that do not fit, no training row, or a loss that is not finite.
    """
    recipe = recipe or ProbeRecipe()
    labels, train, test = _checked(len(vectors), remaining, held_out, bins)
    if vectors.ndim != 2:
        raise ValueError(f"vectors must be [n, H], got {list(vectors.shape)}")
    mean, scale = _moments(vectors, train)
    start = Probe.untrained(vectors.shape[1], bins, layer, units=recipe.hidden_units, seed=recipe.seed)
    weights = [torch.from_numpy(start.weights[name].copy()).requires_grad_() for name in WEIGHT_NAMES]
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def loss_of(rows: npt.NDArray[np.int64]) -> torch.Tensor:
        batch = torch.from_numpy((np.asarray(vectors[rows], dtype=np.float32) - mean) / scale)
        logits = F.linear(F.linear(batch, weights[0], weights[1]).relu(), weights[2], weights[3])
        return F.cross_entropy(logits, torch.from_numpy(labels[rows]))

    batches = _Batches(train, recipe.batch_size, recipe.epochs, recipe.seed)
    losses = _optimise(optimizer, batches, loss_of, warmup_share=0.0, progress=progress)

    hidden, bias, output, output_bias = (tensor.detach().numpy() for tensor in weights)
    folded = hidden / scale
    # Sums over H terms of the mean's size would cost float32 the small differences that matter.
    shift = folded.astype(np.float64) @ mean.astype(np.float64)
    arrays = (folded, bias - shift, output, output_bias)
    probe = Probe(dict(zip(WEIGHT_NAMES, arrays, strict=True)), bins, layer)
    chunks = (probe.predict(np.asarray(vectors[rows])) for rows in _chunks(test))
    probabilities = np.concatenate([np.empty((0, bins.k), dtype=np.float32), *chunks])
    metrics = _metrics(probabilities, remaining[test], float(np.median(remaining[train])), bins)
    return TrainedProbe(probe, metrics, losses)


def train_prompt_predictor(
    prompts: Sequence[Sequence[int]],
    lengths: npt.NDArray[np.number],
    held_out: npt.NDArray[np.bool_],
    *,
    bins: Bins,
    vocab_size: int,
    size: "EncoderSize | None" = None,
    recipe: PromptRecipe | None = None,
    progress: Progress | None = None,
) -> TrainedPromptPredictor:
    """Train an encoder on n prompts (token ids) and the whole output lengths [n] in tokens.

    `held_out` as for `train_probe`; a prompt may occur several times, once an answer. Raises ValueError
    as `train_probe` does.
    """
    from trail.predict.prompt import PromptPredictor

    recipe = recipe or PromptRecipe()
    labels, train, test = _checked(len(prompts), lengths, held_out, bins)
    predictor = PromptPredictor.untrained(vocab_size, bins, size, seed=recipe.seed)
    optimizer = torch.optim.AdamW(
        predictor.encoder.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )

    def loss_of(rows: npt.NDArray[np.int64]) -> torch.Tensor:
        logits = predictor.logits([prompts[row] for row in rows])
        return F.cross_entropy(logits, torch.from_numpy(labels[rows]))

    with torch.random.fork_rng(devices=[]):  # dropout draws from torch's global generator
        torch.manual_seed(recipe.seed)
        predictor.encoder.train()
        batches = _Batches(train, recipe.batch_size, recipe.epochs, recipe.seed)
        losses = _optimise(optimizer, batches, loss_of, warmup_share=recipe.warmup_share, progress=progress)
    predictor.encoder.eval()
    probabilities = predictor.predict([prompts[row] for row in test])
    metrics = _metrics(probabilities, lengths[test], float(np.median(lengths[train])), bins)
    return TrainedPromptPredictor(predictor, metrics, losses)


class _Batches:
    """Row numbers of every batch of every epoch, shuffled by the seed."""

    def __init__(self, rows: npt.NDArray[np.int64], batch_size: int, epochs: int, seed: int) -> None:
        if batch_size < 1 or epochs < 1:
            raise ValueError(f"batch size and epochs must be at least 1, got {batch_size} and {epochs}")
        self._rows, self._batch_size, self.epochs = rows, batch_size, epochs
        self._rng = np.random.default_rng(seed)
        self.steps = epochs * -(-len(rows) // batch_size)

    def epoch(self) -> Iterator[npt.NDArray[np.int64]]:
        shuffled = self._rng.permutation(self._rows)
        for begin in range(0, len(shuffled), self._batch_size):
            # Ascending rows keep reads from a mapped file in order; within a batch order is irrelevant.
            yield np.sort(shuffled[begin : begin + self._batch_size])


def _optimise(
    optimizer: torch.optim.Optimizer,
    batches: _Batches,
    loss_of: Callable[[npt.NDArray[np.int64]], torch.Tensor],
    *,
    warmup_share: float,
    progress: Progress | None,
) -> list[float]:
    """Run all epochs with the learning rate on a cosine to 0; the mean loss of every epoch."""
    warmup_steps = int(batches.steps * warmup_share)

    def rate(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return 0.5 * (1 + float(np.cos(np.pi * (step - warmup_steps) / (batches.steps - warmup_steps))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    losses = []
    for epoch in range(batches.epochs):
        total, rows_seen = 0.0, 0
        for rows in batches.epoch():
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(rows)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
            rows_seen += len(rows)
        losses.append(total / rows_seen)
        if not np.isfinite(losses[-1]):
            raise ValueError(
                f"the loss became {losses[-1]} in epoch {epoch + 1}; look for NaN or infinity in the"
                " vectors, or lower the learning rate"
            )
        if progress is not None:
            progress(epoch + 1, batches.epochs, losses[-1])
    return losses


def _checked(
    n: int, lengths: npt.NDArray[np.number], held_out: npt.NDArray[np.bool_], bins: Bins
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Bin of every row, rows to train on, rows to judge on."""
    if len(lengths) != n or held_out.shape != (n,) or held_out.dtype != np.bool_:
        raise ValueError(
            f"{n} rows need {n} lengths and held_out as bool [{n}], got {len(lengths)} lengths and"
            f" {held_out.dtype} {list(held_out.shape)}"
        )
    train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    if len(train) == 0:
        raise ValueError("every row is held out; nothing is left to train on")
    return bins.index(lengths), train, test


def _moments(
    vectors: npt.NDArray[np.floating], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and scale float32 [H] of the training rows, read in chunks."""
    total = np.zeros(vectors.shape[1])
    squares = np.zeros(vectors.shape[1])
    for chosen in _chunks(rows):
        chunk = np.asarray(vectors[chosen], dtype=np.float64)
        total += chunk.sum(axis=0)
    mean = total / len(rows)
    for chosen in _chunks(rows):
        squares += np.square(np.asarray(vectors[chosen], dtype=np.float64) - mean).sum(axis=0)
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
