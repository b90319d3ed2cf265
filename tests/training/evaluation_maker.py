"""An evaluation's document from simulated answers and forecasts, through the real judging."""

from typing import Any

import numpy as np
import numpy.typing as npt

from trail.predict.bins import Bins, equal_bins
from trail.predict.training.metrics import Forecast, JudgedRows, paired_difference
from trail.training.evaluate.judging import judge_arm

KINDS = ("question", "code", "list <x>")
# Relative error of each arm's guess, and how sure it says it is.
_NOISE = {
    "prompt-countdown": (0.8, 0.8),
    "trail-paper-raw": (0.6, 0.6),
    "trail-paper-refined": (0.42, 0.2),
    "default": (0.3, 0.3),
}


def make_rows(prompts: int = 60) -> JudgedRows:
    """Every decode step of two answers to each prompt."""
    rng = np.random.default_rng(2)
    columns: list[list[int]] = []
    for prompt in range(prompts):
        for answer in range(2):
            length = int(rng.gamma(1.6, 70)) + 3
            columns += [[prompt, 2 * prompt + answer, age, length - age] for age in range(1, length)]
    table = np.array(columns, dtype=np.int64)
    return JudgedRows(*table.T, table[:, 0] % len(KINDS))


def around(tokens: npt.NDArray[np.float64], spread: float, bins: Bins) -> npt.NDArray[np.float32]:
    """A log-normal distribution around each guess, cut into the bins."""
    x = np.log(np.maximum(np.asarray(bins.edges), 1e-9) / np.maximum(tokens[:, None], 0.5)) / spread
    below = 1 / (1 + np.exp(-1.702 * np.clip(x, -20, 20)))
    below[:, 0], below[:, -1] = 0, 1
    return np.diff(below, axis=1).astype(np.float32)


def make_forecasts(rows: JudgedRows) -> dict[str, Forecast]:
    """All seven arms; the first has no probabilities, the paper's is too sure of itself."""
    rng = np.random.default_rng(3)
    n, bins = len(rows.age), equal_bins(12, 480.0)
    median = float(np.median(rows.remaining))
    made = {
        "constant": Forecast(bins, None, np.full(n, median)),
        "position": Forecast(
            bins, around(np.full(n, median), 1.0, bins), np.maximum(median - rows.age / 9, 1)
        ),
        "prompt": Forecast(bins, around(np.full(n, 110.0), 0.9, bins), np.full(n, 110.0)),
    }
    answers = rng.normal(size=rows.request.max() + 1)
    for name, (noise, spread) in _NOISE.items():
        off = noise * (0.8 * answers[rows.request] + 0.6 * rng.normal(size=n))
        tokens = rows.remaining * np.exp(off)
        made[name] = Forecast(bins, around(tokens, spread, bins), tokens)
    return made


def make_document(*, bare: bool = False, swap: bool = False) -> dict[str, Any]:
    """What `trail evaluate` writes. `bare`: without every part that may be missing, and no arm with
    probabilities. `swap`: the paper's recipe is the better one."""
    rows, forecasts = make_rows(), make_forecasts(make_rows())
    if swap:
        ours, papers = forecasts["default"], forecasts["trail-paper-refined"]
        forecasts |= {"default": papers, "trail-paper-refined": ours}
    if bare:
        rows = JudgedRows(rows.prompt, rows.request, rows.age, rows.remaining)
        forecasts = {name: Forecast(f.bins, None, f.tokens) for name, f in forecasts.items()}
    arms = {
        name: judge_arm(rows, forecast, kinds=KINDS, resamples=200) for name, forecast in forecasts.items()
    }
    for arm in arms.values():
        arm["mae_seeds"] = [arm["mae"]] if bare else [arm["mae"] * (1 + 0.01 * i) for i in (0, 2, -1, 1, 3)]
    compared = [("default", other) for other in ("trail-paper-refined", "prompt-countdown", "position")]
    mae = arms["default"]["mae"]
    document: dict[str, Any] = {
        "model": "models/demo <x>",
        "predictor": "build/predictor",
        "created_at": "2025-01-01T00:00:00+00:00",
        "test": {
            "prompts": 60, "requests": 120, "rows": len(rows.age), "censored_left_out": 4,
            "trained_on_left_out": 2, "mean_output_tokens": 113.4,
        },
        "seeds": [0] if bare else [0, 1, 2, 3, 4],
        "arms": arms,
        "differences": {
            f"{a} against {b}": paired_difference(rows, forecasts[a], forecasts[b], resamples=200)
            for a, b in compared
        },
        "floor": None if bare else {
            "mae": 0.8 * mae, "mae_low": 0.75 * mae, "mae_high": 0.86 * mae, "steps": 2000,
            "continuations": 16, "left_out": 3,
        },
        "layers": None if bare else {str(layer): {"mae": 30 + abs(layer - 9) / 4} for layer in range(1, 33)},
        "speed": None if bare else [
            {"batch": b, "us_per_sample": 150 / b + fast, "device": device, "dtype": dtype}
            for device, dtype, fast in (("cpu", "float32", 9.0), ("cuda", "float16", 0.4))
            for b in (2**i for i in range(12))
        ],
        "step_ms": None if bare else 24.7,
        "training": {"requests": 4000, "probe": {"epochs": 30, "sizes": [512, 24]}, "layers": [1, 2, 3]},
        "command": "trail evaluate build/predictor --recording a&b",
    }  # fmt: skip
    return document
