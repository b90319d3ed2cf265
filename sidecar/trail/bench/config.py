"""Everything a benchmark is told, parsed once."""

import math
from dataclasses import dataclass
from pathlib import Path

from trail.policy.spec import PolicySpec, parse_policy

STOCK = "fcfs"
"""The arm that is vLLM without TRAIL, in a server process of its own; every other arm is compared with it.

`fcfs-reserve16` and the like are not: they serve in the same order, with TRAIL's limit on admission.
"""


@dataclass(frozen=True)
class Arm:
    """One way of scheduling: its name in results, and the policy it stands for."""

    name: str
    policy: PolicySpec

    @property
    def stock(self) -> bool:
        """Whether the arm runs on vLLM with TRAIL switched off."""
        return self.name == STOCK

    @property
    def needs_lengths(self) -> bool:
        """Whether requests must carry their exact output length."""
        return self.policy.name == "oracle"


def parse_arms(text: str) -> tuple[Arm, ...]:
    """Arms from a comma-separated list such as `fcfs,sjf,trail-c0.2,oracle,adaptive-k2`.

    Raises ValueError on an empty list, an unknown arm, or one named twice.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise ValueError("--arms names no arm; for example: --arms fcfs,trail-c0.8")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"--arms names {', '.join(twice)} twice; results are kept by name")
    return tuple(Arm(name, parse_policy(name)) for name in names)


@dataclass(frozen=True)
class Load:
    """Offered load: a multiple of the measured FCFS capacity, or a rate; neither: a trace's own clock."""

    times_capacity: float | None = None
    rate_per_s: float | None = None

    @property
    def text(self) -> str:
        """The load as it is written on the command line."""
        if self.times_capacity is not None:
            return f"{self.times_capacity:g}x"
        return "trace" if self.rate_per_s is None else f"{self.rate_per_s:g}"


def parse_load(text: str) -> Load:
    """`1.3x` (times measured capacity), `25` (requests/s) or `trace` (the trace's own clock)."""
    if text == "trace":
        return Load()
    relative = text.endswith("x")
    try:
        value = float(text[:-1] if relative else text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"--load {text!r}: write 1.3x for 1.3 times the capacity, 25 for 25 requests/s, or trace"
        )
    return Load(times_capacity=value) if relative else Load(rate_per_s=value)


@dataclass(frozen=True)
class Arrivals:
    """Arrival process: `poisson`, `burst`, `gamma` with the gaps' squared CV, or `trace` with its file."""

    kind: str
    scv: float = 1.0
    trace: Path | None = None

    @property
    def text(self) -> str:
        """The process as it is written on the command line."""
        return {"gamma": f"gamma:{self.scv:g}", "trace": f"trace:{self.trace}"}.get(self.kind, self.kind)


def parse_arrivals(text: str) -> Arrivals:
    """`poisson`, `burst`, `gamma:SCV` or `trace:FILE`."""
    kind, _, detail = text.partition(":")
    if kind in ("poisson", "burst") and not detail:
        return Arrivals(kind)
    if kind == "trace" and detail:
        return Arrivals(kind, trace=Path(detail))
    if kind == "gamma":
        try:
            scv = float(detail)
        except ValueError:
            scv = math.nan
        if math.isfinite(scv) and scv > 0:
            return Arrivals(kind, scv=scv)
    raise ValueError(
        f"--arrivals {text!r}: write poisson, burst, gamma:8 (squared CV of gaps) or trace:FILE.csv"
    )


@dataclass(frozen=True)
class BenchConfig:
    """One benchmark. Raises ValueError where parts do not fit together."""

    model: str
    predictor: Path | None
    arms: tuple[Arm, ...]
    load: Load
    arrivals: Arrivals
    prompts: Path | None
    """JSON lines; None draws from the demo model's own distribution."""
    requests: int
    repeats: int
    temperature: float
    max_tokens: int
    seed: int
    capacity_requests: int
    warmup_requests: int
    stream_interval: int
    request_timeout_s: float
    start_timeout_s: float
    vllm_args: tuple[str, ...]
    out: Path

    def __post_init__(self) -> None:
        for name in ("requests", "repeats", "max_tokens", "capacity_requests", "stream_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0 or self.warmup_requests < 0 or self.temperature < 0:
            raise ValueError("--seed, --warmup-requests and --temperature must not be negative")
        if self.request_timeout_s <= 0 or self.start_timeout_s <= 0:
            raise ValueError("--request-timeout and --start-timeout must be positive, in seconds")
        if self.load.text == "trace" and self.arrivals.kind != "trace":
            raise ValueError("--load trace keeps a trace's own clock: it needs --arrivals trace:FILE")
        if len(self.arms) == 1 and self.arms[0].needs_lengths:
            raise ValueError("the oracle takes its lengths from another arm's run; name one more in --arms")

    @property
    def needs_capacity(self) -> bool:
        """Whether the FCFS capacity must be measured before rates are known."""
        return self.arrivals.kind != "burst" and self.load.times_capacity is not None
