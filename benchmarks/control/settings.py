"""The grid on which the controller is compared with constant values of c."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.names import ENV_SHARED
from trail.bench.arrivals import gamma_gaps
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.steptime import PRESETS, StepModel
from trail.simulation.engine.workload import Workload
from trail.simulation.files import read_source
from trail.simulation.run import measure_capacity

AZURE = "azure"
SHAPES = ("step up", "step down", "steps", "bursts", AZURE)
COSTS = {"expensive": 1.0, "middling": 1 / 8, "cheap": 1 / 50}
"""Time of a prefill token, in that of an H200 with an 8B model."""

_BLOCK_TOKENS = 16
_CAPACITY_REQUESTS = 3000
_LOW, _HIGH = 0.55, 1.15
_BURST_LOAD, _BURST_SCV = 0.9, 10.0
_AZURE_LOAD = 0.9

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """A shape of load on an engine. `prompt` and `answer` are mean lengths; the Azure hour has its own.

    `memory` is the KV cache in contexts of mean length a slot: 2 is plenty, 0.7 leaves slots empty.
    """

    shape: str
    cost: str
    prefix_cache: bool
    prompt: int
    answer: int = 200
    slots: int = 48
    memory: float = 3.0
    policy: str = "trail"

    @property
    def name(self) -> str:
        """As it stands in the table."""
        lengths = "" if self.shape == AZURE else f", prompts of {self.prompt}"
        cache = "on" if self.prefix_cache else "off"
        memory = ", KV scarce" if self.memory < 1 else ""
        return f"{self.shape}, {self.cost} recompute, prefix cache {cache}{lengths}{memory}, {self.policy}"

    @property
    def model(self) -> StepModel:
        """How long its steps take."""
        base = PRESETS["h200-8b"]
        return replace(base, prefill_token_s=base.prefill_token_s * COSTS[self.cost])

    @property
    def engine(self) -> EngineConfig:
        """Its limits."""
        context = self.prompt + self.answer
        largest = 8000 + 1000  # of the Azure hour, prompt and answer
        tokens = max(self.slots * self.memory * context, largest if self.shape == AZURE else 4000)
        return EngineConfig(
            slots=self.slots,
            token_budget=2048,
            kv_blocks=int(tokens / _BLOCK_TOKENS),
            block_tokens=_BLOCK_TOKENS,
            prefix_cache=self.prefix_cache,
        )

    def workload(self, requests: int, seed: int) -> Workload:
        """Requests of one seed, at shares of the load that the stock engine sustains; or the Azure hour."""
        if self.shape == AZURE:
            recorded = read_source(azure_file()).recorded
            assert recorded is not None  # noqa: S101 - the file holds arrivals
            sample = recorded.window(0, _CAPACITY_REQUESTS)
            capacity = measure_capacity(self.engine, self.model, sample).requests_per_s
            return recorded.at_rate(_AZURE_LOAD * capacity)
        rng = np.random.default_rng(np.random.SeedSequence([seed, 0xC]))
        pool = _lengths(_CAPACITY_REQUESTS, self.prompt, self.answer, np.random.default_rng(0xC))
        capacity = measure_capacity(self.engine, self.model, _there(*pool)).requests_per_s
        prompt, output = _lengths(requests, self.prompt, self.answer, rng)
        return Workload(_arrivals(self.shape, requests, capacity, rng), prompt, output)


def grid() -> Iterator[Setting]:
    """All settings."""
    for shape in SHAPES:
        if shape == AZURE:
            if azure_file().is_file():
                for cost in ("expensive", "cheap"):
                    for cache in (False, True):
                        yield Setting(shape, cost, cache, 1155, 211, slots=64)
            continue
        for cost in COSTS:
            for cache in (False, True):
                for prompt in (150, 1000):
                    yield Setting(shape, cost, cache, prompt)
        for cost in ("expensive", "cheap"):
            yield Setting(shape, cost, True, 1000, memory=0.7)
            yield Setting(shape, cost, True, 1000, policy="adaptive")


def azure_file() -> Path:
    """The Azure hour, where the optional data are."""
    return Path(os.environ.get(ENV_SHARED, "")) / "data" / "traces" / "azure_llm_2023_conv.csv.gz"


def _there(prompt: Ints, output: Ints) -> Workload:
    return Workload(np.zeros(len(prompt)), prompt, output)


def _lengths(n: int, prompt: int, answer: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Lognormal lengths of the given means; their logarithms have standard deviations of 0.8 and 1."""
    prompts = rng.lognormal(np.log(prompt) - 0.32, 0.8, n)
    answers = rng.lognormal(np.log(answer) - 0.5, 1.0, n)
    return np.clip(prompts, 4, 3000).astype(np.int64), np.clip(answers, 1, 1000).astype(np.int64)


def _arrivals(shape: str, n: int, capacity: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Seconds `[n]`: Poisson at a low and a high load, or bursts."""
    if shape == "bursts":
        return gamma_gaps(n, _BURST_LOAD * capacity, _BURST_SCV, rng)
    third = 3 * np.arange(n) // n
    high = {"step up": third > 0, "step down": third == 0, "steps": 6 * np.arange(n) // n % 2 == 1}[shape]
    gaps = rng.exponential(1.0, n) / (capacity * np.where(high, _HIGH, _LOW))
    return np.asarray(np.cumsum(gaps), np.float64)
