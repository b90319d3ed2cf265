"""The grid: whose requests, how they arrive, on which engine, at which loads."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.names import ENV_SHARED
from benchmarks.policies.predictor import REFINED, measured
from trail.bench.config import Arrivals
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.predictors import Predictor
from trail.simulation.engine.steptime import PRESET_KV_TOKENS, PRESETS
from trail.simulation.engine.workload import RECORDED, Pool, Source, Workload
from trail.simulation.files import read_source
from trail.simulation.sweep import Setting

ARMS = (
    "fcfs", "fcfs-reserve16", "sjf", "trail-prompt", "trail-c0", "trail-c0.2", "trail-c0.8", "mlfq",
    "adaptive", "oracle-c0",
)  # fmt: skip
KNOB = ("adaptive-k0", "adaptive-k0.5", "adaptive-k2", "adaptive-k4", "adaptive-kinf")
"""Further arms where the frontier is drawn."""

LOADS = (0.7, 0.85, 0.9, 0.95, 1.0, 1.05)
FEW_LOADS = (0.85, 1.05)
BURST_LOAD, BURST_SCV = 0.9, 16.0
PEAK = 1.05
THRASHING_LOADS = {"poisson": 1.3, "burst": 1.15}
"""Further loads of CASTILLO's lengths, KV-poor: capacity is measured with all requests there at once, when
stock thrashes. While it does not, it serves a fifth to a quarter more: at 1.05 no queue may form at all.
"""

EVERY_TOKENS = 10
TUNING_SHARE = 1 / 3
"""Parameters are chosen on the first part of a recording, or every third prompt of a pool; results are those
of the rest."""
_BLOCK_TOKENS = 16
_SLOTS_BOUND, _KV_POOR = "slots-bound", "KV-poor"
_GENERATED = 12_000


@dataclass(frozen=True)
class Case:
    """Settings that differ in load only."""

    lengths: str
    arrivals: str
    memory: str
    device: str
    loads: tuple[float, ...]

    @property
    def name(self) -> str:
        """As it stands in the table, without the load."""
        return f"{self.lengths}, {self.arrivals} arrivals, {self.memory}, {self.device}"

    @property
    def engine(self) -> EngineConfig:
        """64 slots that memory always suffices for, or 256 with the memory for about 90 requests."""
        poor = self.memory == _KV_POOR
        tokens = 120_000 if poor else PRESET_KV_TOKENS[f"{self.device}-8b"]
        return EngineConfig(
            slots=256 if poor else 64, kv_blocks=tokens // _BLOCK_TOKENS, block_tokens=_BLOCK_TOKENS
        )

    def setting_name(self, load: float) -> str:
        """As it stands in the table."""
        return f"{self.name}, load {load:g}"

    def requests(self, least: int, load: float) -> int:
        """Requests of a run: twice as many beyond capacity, where a queue takes its time to grow."""
        return 2 * least if load > 1 else least

    def peak(self, load: float) -> bool:
        """Whether this is a setting of the targets for overload."""
        return self.arrivals == "burst" or load >= PEAK

    def setting(self, requests: int, *, tuning: bool) -> Setting:
        """What `trail simulate` runs."""
        source = _part(self.lengths, tuning=tuning)
        kinds = {"recorded": RECORDED, "poisson": Arrivals("poisson"), "burst": Arrivals("gamma", BURST_SCV)}
        return Setting(
            source=source,
            arrivals=kinds[self.arrivals],
            engine=self.engine,
            model=PRESETS[f"{self.device}-8b"],
            predictor=_predictor(self.lengths),
            every=EVERY_TOKENS,
            requests=requests,
            keep=0,
        )


def grid(*, quick: bool = False, only: str = "") -> list[Case]:
    """All cases with the loads at which their settings' names hold `only`; `quick`: two generated cases."""
    cases = list(_cases())
    if quick:
        cases = [
            Case("generated", "poisson", memory, "h200", FEW_LOADS) for memory in (_SLOTS_BOUND, _KV_POOR)
        ]
    chosen = [
        replace(case, loads=tuple(load for load in case.loads if only in case.setting_name(load)))
        for case in cases
    ]
    return [case for case in chosen if case.loads]


def _cases() -> Iterator[Case]:
    traces = (("azure", "recorded"), ("castillo", "poisson")) if shared() else (("generated", "poisson"),)
    for device, loads in (("h200", LOADS), ("a100", FEW_LOADS)):
        for memory in (_SLOTS_BOUND, _KV_POOR):
            for lengths, arrivals in traces:
                more = THRASHING_LOADS if (lengths, memory) == ("castillo", _KV_POOR) else {}
                for kind, own in ((arrivals, loads), ("burst", (BURST_LOAD,))):
                    added = (more[kind],) if kind in more else ()
                    yield Case(lengths, kind, memory, device, own + added)


def shared() -> Path | None:
    """The directory of the optional data (`TRAIL_SHARED`)."""
    root = os.environ.get(ENV_SHARED, "")
    data = Path(root) / "data"
    return data if root and data.is_dir() else None


@lru_cache(maxsize=4)
def _source(name: str) -> Source:
    data = shared()
    if name == "generated" or data is None:
        return Source("generated", pool=_generated())
    files = {"azure": "traces/azure_llm_2023_conv.csv.gz", "castillo": "lengths/castillo_lengths.csv.gz"}
    return read_source(data / files[name])


def _generated() -> Pool:
    """Lognormal lengths with about the means and spreads of the Azure conversation trace."""
    rng = np.random.default_rng(np.random.SeedSequence([0x67]))
    prompt = rng.lognormal(np.log(1155) - 0.5, 1.0, _GENERATED)
    output = rng.lognormal(np.log(211) - 0.32, 0.8, _GENERATED)
    return Pool(np.clip(prompt, 4, 8000).astype(np.int64), np.clip(output, 2, 1000).astype(np.int64))


def _part(name: str, *, tuning: bool) -> Source:
    source = _source(name)
    if source.recorded is not None:
        work = source.recorded
        cut = int(len(work) * TUNING_SHARE)
        rows = slice(0, cut) if tuning else slice(cut, None)
        arrival_s = work.arrival_s[rows]
        part = Workload(arrival_s - arrival_s[0], work.prompt_tokens[rows], work.output_tokens[rows])
        return replace(source, recorded=part)
    assert source.pool is not None  # noqa: S101 - one of the two is there
    # Ten samples a prompt stand side by side, prompts of one data set, too.
    chosen = (np.arange(len(source.pool.output_tokens)) // 10 % 3 == 0) == tuning
    return replace(source, pool=Pool(source.pool.prompt_tokens[chosen], source.pool.output_tokens[chosen]))


@lru_cache(maxsize=4)
def _predictor(name: str) -> Predictor:
    data = shared()
    file = data / "lengths" / "ssjf_lmsys_vicuna13b_lengths_with_bert_class.csv.gz" if data else None
    if name == "generated" or file is None or not file.is_file():
        return REFINED
    return measured(file, _source(name).lengths())
