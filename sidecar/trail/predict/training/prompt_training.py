"""Training of the prompt predictor, an encoder from prompts to bins of the whole output length.

Deterministic on CPU for a given seed and number of torch threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from trail.predict.bins import Bins
from trail.predict.encoder import BASE, EncoderSize
from trail.predict.training.epochs import Batches, Epochs, Progress
from trail.predict.training.likelihood import log_beyond
from trail.predict.training.parts import Parts

if TYPE_CHECKING:  # importing it imports transformers
    from trail.predict.prompt import PromptPredictor


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
class TrainedPromptPredictor:
    """`metrics` as in TrainedProbe, of the whole output length on held-out prompts."""

    predictor: "PromptPredictor"
    metrics: dict[str, float]
    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)


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
    parts = Parts.of(len(prompts), lengths, held_out, validation, bins)
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
    metrics = parts.metrics(probabilities, lengths, bins)
    return TrainedPromptPredictor(predictor, metrics, fit.training_loss, fit.validation_loss)


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
        parts: Parts,
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
