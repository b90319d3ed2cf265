"""The probe's time a sample, by batch size, beside this machine's matrix product, and its training's."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from trail.predict.first_layer import ARITHMETICS
from trail.predict.probe import FASTEST, Probe
from trail.predict.training.probe_training import ProbeRows, train_probe
from trail.predict.training.recipes import DEFAULT

BATCHES = (1, 4, 16, 64, 256, 1024, 2048)
_LEAST_S = 0.05
_ROUNDS = 5


def measure_speed(
    probe: Probe, batches: Sequence[int] = BATCHES, arithmetic: str = FASTEST, rounds: int = _ROUNDS
) -> list[dict[str, Any]]:
    """What `Probe.predict` takes on CPU as a sidecar would run it, with torch's present number of threads.

    For every batch size `us_per_sample`, the `arithmetic` of its first layer, and what share of that time the
    first layer's bare matrix product takes: `of_matmul_float32`, `of_matmul_bfloat16`, and `of_matmul`, the
    lesser, which is the share of the most that the machine reaches. Every figure is that of the best of
    interleaved rounds, a round's being the median of its calls.
    """
    served = probe.prepared(arithmetic)
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(probe.weights["hidden.weight"])
    found = []
    for batch in batches:
        vectors = rng.standard_normal((batch, probe.hidden_size), dtype=np.float32)
        calls = {
            "predict": _prediction(served, vectors),
            "float32": _product(torch.from_numpy(vectors), weight),
            "bfloat16": _product(torch.from_numpy(vectors).bfloat16(), weight.bfloat16()),
        }
        least = dict.fromkeys(calls, float("inf"))
        for _ in range(rounds):
            for name, call in calls.items():
                least[name] = min(least[name], _seconds(call))
        shares = {name: least[name] / least["predict"] for name in ("float32", "bfloat16")}
        found.append(
            {
                "batch": batch,
                "us_per_sample": 1e6 * least["predict"] / batch,
                "arithmetic": [name for rows, name in served.arithmetic.items() if rows <= batch][-1],
                **{f"of_matmul_{name}": share for name, share in shares.items()},
                "of_matmul": min(shares.values()),
                "device": "cpu",
                "dtype": arithmetic if arithmetic in ARITHMETICS else "fastest arithmetic",
            }
        )
    return found


def training_rows_per_s(probe: Probe, rows: int = 4096, epochs: int = 4) -> float:
    """How many rows a second `train_probe` goes through by the default recipe, in the fastest of the epochs.

    On CPU, with torch's present number of threads; random rows of the probe's hidden size and bins.
    """
    rng = np.random.default_rng(0)
    data = ProbeRows(
        rng.standard_normal((rows, probe.hidden_size), dtype=np.float32),
        rng.integers(1, int(probe.bins.edges[-1]), rows),
        ages=rng.integers(1, 100, rows),
        prompt_tokens=np.full(rows, 100),
    )
    ends: list[float] = []
    train_probe(
        data,
        np.zeros(rows, dtype=np.bool_),
        bins=probe.bins,
        layer=probe.layer,
        recipe=replace(DEFAULT.probe, epochs=epochs + 1, patience=0),
        progress=lambda _done, _total, _loss: ends.append(time.perf_counter()),
    )
    return float(rows / np.diff(ends).min())


def _prediction(probe: Probe, vectors: np.ndarray[Any, np.dtype[np.float32]]) -> Callable[[], object]:
    ages, prompt_tokens = np.arange(len(vectors)), np.full(len(vectors), 100)
    return lambda: probe.predict(vectors, ages, prompt_tokens)


def _product(vectors: torch.Tensor, weight: torch.Tensor) -> Callable[[], object]:
    return lambda: torch.mm(vectors, weight.t())


def _seconds(call: Callable[[], object]) -> float:
    """Median seconds of one call, among as many as fill _LEAST_S."""
    took: list[float] = []
    with torch.inference_mode():
        call()
        end = time.perf_counter() + _LEAST_S
        while not took or time.perf_counter() < end:
            begin = time.perf_counter()
            call()
            took.append(time.perf_counter() - begin)
    return float(np.median(took))
