"""The errors of real predictors, laid on the lengths of a simulated workload."""

import csv
import gzip
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trail.simulation.engine.predictors import Confusion, Lognormal, Predictions, Predictor
from trail.simulation.engine.workload import Pool, Workload

CLASSES = np.array([0.25, 0.5, 0.75, 0.99])
"""Shares of answers at which the classifier's five classes of length part."""
REFINED = Lognormal(0.6, 0.43, 0.9)
"""Refined predictions: a mean absolute error of 36 % of what remains, as `trail evaluate` has for the default
recipe on stories260K (48.2 tokens, of 135 that a step has to go on average)."""


@dataclass(frozen=True)
class Measured:
    """Initial predictions by a measured confusion matrix, refined ones with the measured mean error."""

    initial: Confusion
    refined: Lognormal = REFINED

    @property
    def text(self) -> str:
        """Both."""
        return f"{self.initial.text}, refined {self.refined.text}"

    def predict(self, work: Workload, every: int, rng: np.random.Generator) -> Predictions:
        """Predictions of all requests of `work`."""
        first = self.initial.predict(work, every, rng)
        return replace(
            self.refined.predict(work, every, rng),
            initial=first.initial,
            gittins_initial=first.gittins_initial,
        )


def classifier_counts(path: Path) -> NDArray[np.float64]:
    """Confusion matrix [5, 5] of the BERT classifier of SSJF (arXiv 2404.08509) on its real answers.

    Rows are the true classes, by `CLASSES` of the file's own lengths, columns how often each was said.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [(int(row["actual_output_tokens"]), int(row["pred_class5"])) for row in csv.DictReader(file)]
    length, said = np.array(rows).T
    true = np.searchsorted(np.quantile(length, CLASSES), length, side="right")
    counts = np.zeros((len(CLASSES) + 1, len(CLASSES) + 1))
    np.add.at(counts, (true, said), 1.0)
    return counts


def measured(path: Path, lengths: Pool) -> Predictor:
    """The classifier of `path` for answers of `lengths`: it takes an answer's class by its place among them.

    What it says is the middle of a class, of the last one the mean.
    """
    output = lengths.output_tokens
    inner = np.quantile(output, CLASSES)
    largest = float(output[output >= inner[-1]].mean())
    edges = (0.0, *inner.tolist(), 2 * largest - float(inner[-1]) + 1.0)
    counts = tuple(map(tuple, classifier_counts(path).tolist()))
    return Measured(Confusion(edges, counts, counts, name="SSJF's BERT classifier"))
