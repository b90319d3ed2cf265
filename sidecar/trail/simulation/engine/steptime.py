"""How long one engine step takes: a linear model, as coefficients and on disk.

    seconds = fixed + sequence * decoding + prefill_token * prefill tokens + kv_token * KV tokens read
              + arrival * arrivals

`decoding` counts the sequences that get one token from a cached context. `KV tokens read` is the sum of the
context lengths, after the step, of all sequences in it. `arrivals` are requests that have come since the step
before: an API server that shares its cores with the engine keeps it from them meanwhile, whether or not the
request can be started. Coefficients are never negative.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trail.wire.files import write_json

FORMAT = 1
TICKS_PER_S = 10**15
"""The simulated clock counts femtoseconds: in integers, steps taken together sum to exactly what they would
one by one."""

COEFFICIENTS = ("fixed_s", "sequence_s", "prefill_token_s", "kv_token_s", "arrival_s")


class StepModelError(ValueError):
    """A step model that cannot be used; the message says where and why."""


@dataclass(frozen=True)
class StepModel:
    """Seconds of a step by its composition. Raises StepModelError for coefficients that stop the clock."""

    name: str
    fixed_s: float
    sequence_s: float
    prefill_token_s: float
    kv_token_s: float
    arrival_s: float = 0.0
    origin: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Where the coefficients come from: a fit's data and error, or a preset's rates."""

    def __post_init__(self) -> None:
        for coefficient in COEFFICIENTS:
            value = getattr(self, coefficient)
            if not (math.isfinite(value) and value >= 0):
                raise StepModelError(
                    f"step model {self.name}: {coefficient} must not be negative, got {value!r}"
                )
        if self.fixed_s + self.sequence_s <= 0 or self.fixed_s + self.prefill_token_s <= 0:
            raise StepModelError(
                f"step model {self.name}: steps would take no time; fixed_s must be positive"
            )

    def seconds(
        self, decoding: float, prefill_tokens: float, kv_tokens: float, arrivals: float = 0.0
    ) -> float:
        """Seconds of one step."""
        return (
            self.fixed_s
            + self.sequence_s * decoding
            + self.prefill_token_s * prefill_tokens
            + self.kv_token_s * kv_tokens
            + self.arrival_s * arrivals
        )

    def slower(self, factor: float) -> "StepModel":
        """The same engine on a machine that takes `factor` times as long."""
        return replace(self, **{name: factor * getattr(self, name) for name in COEFFICIENTS})


@dataclass(frozen=True)
class StepTicks:
    """A step model in whole ticks of the simulated clock."""

    fixed: int
    sequence: int
    prefill_token: int
    kv_token: int
    arrival: int = 0

    @classmethod
    def of(cls, model: StepModel) -> "StepTicks":
        """Coefficients rounded to femtoseconds."""
        return cls(*(round(getattr(model, c) * TICKS_PER_S) for c in COEFFICIENTS))

    def step(self, decoding: int, prefill_tokens: int, kv_tokens: int, arrivals: int = 0) -> int:
        """Ticks of one step."""
        return (
            self.fixed
            + self.sequence * decoding
            + self.prefill_token * prefill_tokens
            + self.kv_token * kv_tokens
            + self.arrival * arrivals
        )

    def decode(self, steps: int, decoding: int, kv_tokens: int) -> int:
        """Ticks of `steps` successive steps of the same `decoding` sequences; the first reads `kv_tokens`."""
        first = self.fixed + self.sequence * decoding + self.kv_token * kv_tokens
        return steps * first + self.kv_token * decoding * (steps * (steps - 1) // 2)

    def decode_steps_until(self, ticks: int, decoding: int, kv_tokens: int) -> int:
        """The least number of such steps that take at least `ticks`."""
        if ticks <= 0:
            return 0
        first = self.fixed + self.sequence * decoding + self.kv_token * kv_tokens
        growth = self.kv_token * decoding
        if growth == 0:
            return -(-ticks // first)
        # n first + growth n (n - 1) / 2 >= ticks: the root, rounded down, is at most one below the answer.
        b = 2 * first - growth
        steps = max((math.isqrt(b * b + 8 * growth * ticks) - b) // (2 * growth), 0)
        while self.decode(steps, decoding, kv_tokens) < ticks:
            steps += 1
        return steps


@dataclass(frozen=True)
class Device:
    """A GPU by its data sheet, and the shares of its rates that serving reaches."""

    memory_bytes: float
    bandwidth_bytes_per_s: float
    flops_per_s: float
    bandwidth_share: float = 0.8
    flops_share: float = 0.5
    host_step_s: float = 1.5e-3
    """Launching a step, scheduling, sampling: what no rate of the GPU explains."""
    host_sequence_s: float = 4e-6
    """The same, for every sequence more."""


@dataclass(frozen=True)
class Transformer:
    """A decoder by its counts; weights and cache take two bytes a number."""

    parameters: float
    layers: int
    kv_heads: int
    head_size: int

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights."""
        return 2 * self.parameters

    @property
    def kv_bytes(self) -> float:
        """Bytes of one token's keys and values."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_size


H200 = Device(141e9, 4.8e12, 989e12)
A100 = Device(80e9, 2.039e12, 312e12)
LLAMA_8B = Transformer(8.03e9, 32, 8, 128)


def roofline(name: str, device: Device, model: Transformer) -> StepModel:
    """A step model worked out from rates, not measured.

    Every step reads all weights once, every token of context its keys and values: bytes / (share of the)
    bandwidth. A prompt token costs 2 FLOPs a parameter at the (share of the) peak rate; a decoding sequence's
    FLOPs are hidden behind the reading of weights. Host time is an assumption.
    """
    bandwidth = device.bandwidth_share * device.bandwidth_bytes_per_s
    return StepModel(
        name,
        fixed_s=model.weight_bytes / bandwidth + device.host_step_s,
        sequence_s=device.host_sequence_s,
        prefill_token_s=2 * model.parameters / (device.flops_share * device.flops_per_s),
        kv_token_s=model.kv_bytes / bandwidth,
        origin={"from": "stated rates", "device": vars(device), "model": vars(model)},
    )


def kv_capacity_tokens(device: Device, model: Transformer, share: float = 0.9) -> int:
    """Tokens of context that fit beside the weights in `share` of the memory (gpu_memory_utilization)."""
    return int((share * device.memory_bytes - model.weight_bytes) / model.kv_bytes)


_DEVICES = {"h200-8b": H200, "a100-8b": A100}
PRESETS: dict[str, StepModel] = {name: roofline(name, device, LLAMA_8B) for name, device in _DEVICES.items()}
PRESET_KV_TOKENS: dict[str, int] = {
    name: kv_capacity_tokens(device, LLAMA_8B) for name, device in _DEVICES.items()
}


def write_step_model(path: Path, model: StepModel) -> None:
    """The model as JSON, through a temporary file."""
    seconds = {c: getattr(model, c) for c in COEFFICIENTS}
    write_json(
        path, {"format": FORMAT, "name": model.name, "coefficients": seconds, "origin": dict(model.origin)}
    )


def read_step_model(text: str) -> StepModel:
    """A preset by its name, or the file that `trail fit-steps` wrote. Raises StepModelError."""
    if text in PRESETS:
        return PRESETS[text]
    path = Path(text)
    if not path.is_file():
        raise StepModelError(
            f"no step model {text!r}: give a file of trail fit-steps, or {', '.join(PRESETS)}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["format"]
        # Files of older fits know nothing of arrivals.
        seconds = {c: float(v) for c, v in {"arrival_s": 0.0, **content["coefficients"]}.items()}
        model = StepModel(str(content["name"]), **seconds, origin=dict(content.get("origin", {})))
    except StepModelError as e:
        raise StepModelError(f"{path}: {e}") from e
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise StepModelError(f"{path}: not a step model of trail fit-steps ({type(e).__name__}: {e})") from e
    if found != FORMAT:
        raise StepModelError(f"{path}: format {found}, this version reads {FORMAT}; fit it again")
    return model
