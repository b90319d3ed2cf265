"""What trainings have in common: which rows are trained on, stopped by and judged on, and the judging."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trail.predict.bins import Bins
from trail.predict.training.likelihood import share_beyond


@dataclass(frozen=True)
class Parts:
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
    ) -> "Parts":
        """Of n rows. Raises ValueError for shapes that do not fit, or no row to train on."""
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

    def metrics(
        self, probabilities: npt.NDArray[np.float32], lengths: npt.NDArray[np.number], bins: Bins
    ) -> dict[str, float]:
        """What a training says of the rows judged on, whose `probabilities` float32 [test, k] it predicted.

        `lengths` [n] of all rows: the constant judged beside is the training rows' median. Only `rows` where
        there are none to judge on.
        """
        if len(self.test) == 0:
            return {"rows": 0.0}
        actual = lengths[self.test]
        predicted = probabilities.astype(np.float64) @ bins.midpoints
        constant = float(np.median(lengths[self.train]))
        return {
            "rows": float(len(actual)),
            "mae_tokens": float(np.mean(np.abs(predicted - actual))),
            "bin_accuracy": float(np.mean(probabilities.argmax(axis=1) == bins.index(actual))),
            "mae_constant_tokens": float(np.mean(np.abs(constant - actual))),
        }
