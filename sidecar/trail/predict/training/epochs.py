"""The loop of a training: shuffled batches, epochs, and the end where validation stops improving."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Progress = Callable[[int, int, float], None]
"""Called after every epoch with epochs done, epochs in all, and the epoch's mean training loss."""


class Batches:
    """Row numbers of every batch of every epoch, shuffled by the seed."""

    def __init__(self, rows: npt.NDArray[np.int64], batch_size: int, epochs: int, seed: int) -> None:
        if batch_size < 1 or epochs < 1:
            raise ValueError(f"batch size and epochs must be at least 1, got {batch_size} and {epochs}")
        self._rows, self.size, self.epochs = rows, batch_size, epochs
        self._rng = np.random.default_rng(seed)
        self.steps = epochs * -(-len(rows) // batch_size)

    def epoch(self) -> Iterator[npt.NDArray[np.int64]]:
        """The batches of the next epoch, each int64 [at most size]."""
        shuffled = self._rng.permutation(self._rows)
        for begin in range(0, len(shuffled), self.size):
            # Ascending rows keep reads from a mapped file in order; within a batch order is irrelevant.
            yield np.sort(shuffled[begin : begin + self.size])


class Epochs:
    """Epochs with the learning rate on a cosine to 0, until the last or until validation stops improving."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        batches: Batches,
        loss_of: Callable[[npt.NDArray[np.int64]], torch.Tensor],
        *,
        validation: npt.NDArray[np.int64],
        patience: int,
        warmup_share: float = 0.0,
        mode: Callable[[bool], Any] = lambda _training: None,
    ) -> None:
        self.training_loss: list[float] = []
        self.validation_loss: list[float] = []
        self._optimizer, self._batches, self._loss_of = optimizer, batches, loss_of
        self._validation, self._patience, self._mode = validation, patience, mode
        warmup_steps = int(batches.steps * warmup_share)

        def rate(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / (warmup_steps + 1)
            return 0.5 * (1 + float(np.cos(np.pi * (step - warmup_steps) / (batches.steps - warmup_steps))))

        self._schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    def run(self, progress: Progress | None) -> None:
        """Train; raises ValueError when the loss is no longer finite."""
        best: tuple[float, list[torch.Tensor]] | None = None
        since = 0
        for epoch in range(self._batches.epochs):
            self.training_loss.append(self._epoch())
            if not np.isfinite(self.training_loss[-1]):
                raise ValueError(
                    f"the loss became {self.training_loss[-1]} in epoch {epoch + 1}; look for NaN or infinity"
                    " in the vectors, or lower the learning rate"
                )
            if progress is not None:
                progress(epoch + 1, self._batches.epochs, self.training_loss[-1])
            if not len(self._validation):
                continue
            self.validation_loss.append(self._judge())
            if not self._patience:
                continue
            if best is None or self.validation_loss[-1] < best[0]:
                best, since = (self.validation_loss[-1], [w.detach().clone() for w in self._weights()]), 0
                continue
            since += 1
            if since >= self._patience:
                break
        if best is not None:
            with torch.no_grad():
                for weight, kept in zip(self._weights(), best[1], strict=True):
                    weight.copy_(kept)

    def _weights(self) -> list[torch.Tensor]:
        return [weight for group in self._optimizer.param_groups for weight in group["params"]]

    def _epoch(self) -> float:
        self._mode(True)
        total, seen = 0.0, 0
        for rows in self._batches.epoch():
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._loss_of(rows)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            self._optimizer.step()
            self._schedule.step()
            total += float(loss.detach()) * len(rows)
            seen += len(rows)
        return total / seen

    def _judge(self) -> float:
        self._mode(False)
        total = 0.0
        size = max(self._batches.size, 256)
        with torch.no_grad():
            for begin in range(0, len(self._validation), size):
                rows = self._validation[begin : begin + size]
                total += float(self._loss_of(rows)) * len(rows)
        return total / len(self._validation)
