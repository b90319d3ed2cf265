"""The probe's time a sample, by batch size, beside this machine's matrix product of the same shape."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from trail.predict.probe import Probe

BATCHES = (1, 4, 16, 64, 256, 1024, 2048)
_LEAST_S = 0.2
_ROUNDS = 5


def measure_speed(probe: Probe, batches: Sequence[int] = BATCHES) -> list[dict[str, Any]]:
    """For every batch size: `us_per_sample` of `Probe.predict`, and `of_matmul`, the share of time that the
    first layer's bare matrix product alone would take. Medians of interleaved rounds, on CPU in float32.
    """
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(probe.weights["hidden.weight"])
    found = []
    for batch in batches:
        vectors = rng.standard_normal((batch, probe.hidden_size), dtype=np.float32)
        ages, prompts = np.arange(batch), np.full(batch, 100)
        tensor = torch.from_numpy(vectors)

        def predict(v: Any = vectors, a: Any = ages, p: Any = prompts) -> object:
            return probe.predict(v, a, p)

        def product(t: torch.Tensor = tensor) -> object:
            return torch.nn.functional.linear(t, weight)

        times = [(_seconds(predict), _seconds(product)) for _ in range(_ROUNDS)]
        whole, bare = (float(np.median(column)) for column in zip(*times, strict=True))
        found.append(
            {
                "batch": batch,
                "us_per_sample": 1e6 * whole / batch,
                "of_matmul": bare / whole,
                "device": "cpu",
                "dtype": "float32",
            }
        )
    return found


def _seconds(call: Callable[[], object]) -> float:
    """Seconds of one call, from as many as fill _LEAST_S."""
    with torch.inference_mode():
        call()
        calls, begin = 0, time.perf_counter()
        while (passed := time.perf_counter() - begin) < _LEAST_S:
            call()
            calls += 1
    return passed / calls
