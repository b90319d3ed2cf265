"""What is simulated: when requests arrive, and how many tokens they bring and get."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trail.bench.arrivals import gamma_gaps, rescale
from trail.bench.config import Arrivals

_NONE: Any = None
RECORDED = Arrivals("trace")
"""The recording's own arrivals."""


@dataclass(frozen=True)
class Workload:
    """Requests in order of arrival: seconds, prompt tokens, output tokens, `[n]` each.

    `output_tokens` is what the model would generate; at least one, as `prompt_tokens`. `priority` (smaller
    first) is 0 and `allowed_s`, the seconds from its arrival to a request's deadline, infinite where they are
    not given. Raises ValueError for anything else.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    priority: NDArray[np.int64] = _NONE
    allowed_s: NDArray[np.float64] = _NONE

    def __post_init__(self) -> None:
        n = len(self.arrival_s)
        if self.priority is _NONE:
            object.__setattr__(self, "priority", np.zeros(n, np.int64))
        if self.allowed_s is _NONE:
            object.__setattr__(self, "allowed_s", np.full(n, np.inf))
        if not n:
            raise ValueError("the workload holds no request")
        if len(self.prompt_tokens) != n or len(self.output_tokens) != n:
            raise ValueError(
                f"{n} arrivals with {len(self.prompt_tokens)} prompts and {len(self.output_tokens)} outputs"
            )
        if not np.isfinite(self.arrival_s).all() or (np.diff(self.arrival_s) < 0).any():
            raise ValueError("arrivals must be finite and in order")
        if self.prompt_tokens.min() < 1 or self.output_tokens.min() < 1:
            raise ValueError("every request needs at least one prompt token and one output token")

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def rate_per_s(self) -> float | None:
        """Mean arrivals a second; None where all arrive at once."""
        span = float(self.arrival_s[-1] - self.arrival_s[0])
        return (len(self) - 1) / span if span > 0 else None

    def at_once(self) -> "Workload":
        """The same requests, all of them there from the beginning."""
        return replace(self, arrival_s=np.zeros(len(self)))

    def at_rate(self, rate_per_s: float) -> "Workload":
        """The same requests and pattern with arrivals stretched or squeezed to a mean rate, from 0 on."""
        return replace(self, arrival_s=rescale(self.arrival_s, rate_per_s))

    def window(self, start: int, requests: int) -> "Workload":
        """`requests` of them from that at `start` on, round the end where needed; the first arrives at 0."""
        n = len(self)
        if not 0 <= start < n or requests < 1:
            raise ValueError(f"no window of {requests} requests from {start} on in a workload of {n}")
        places = start + np.arange(requests)
        # Going round, the time between the last and the first is that of a mean gap.
        span = float(self.arrival_s[-1] - self.arrival_s[0])
        length_s = span * n / (n - 1) if n > 1 else 0.0
        arrival_s = self.arrival_s[places % n] + (places // n) * length_s
        rows = places % n
        return Workload(
            arrival_s - arrival_s[0],
            self.prompt_tokens[rows],
            self.output_tokens[rows],
            self.priority[rows],
            self.allowed_s[rows],
        )


@dataclass(frozen=True)
class Pool:
    """Lengths to draw requests from, `[m]`: prompt and output tokens that belong together."""

    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]

    def draw(self, requests: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Prompt and output tokens of `requests` requests, drawn with replacement."""
        chosen = rng.integers(0, len(self.output_tokens), requests)
        return self.prompt_tokens[chosen], self.output_tokens[chosen]


@dataclass(frozen=True)
class Source:
    """Where requests come from: a recording with its own arrivals, or a pool of lengths without."""

    name: str
    recorded: Workload | None = None
    pool: Pool | None = None

    def lengths(self) -> Pool:
        """The lengths alone."""
        if self.pool is not None:
            return self.pool
        assert self.recorded is not None  # noqa: S101 - one of the two is there
        return Pool(self.recorded.prompt_tokens, self.recorded.output_tokens)


def repeated(workload: Workload, requests: int) -> Workload:
    """The workload again and again, each time after the one before, until there are `requests` of them."""
    return workload.window(0, requests)


def seeded(
    source: Source,
    requests: int | None,
    arrivals: Arrivals,
    seed: int,
    *,
    trace_s: NDArray[np.float64] | None = None,
) -> Workload:
    """The workload of one seed, with arrivals of mean rate 1 a second (recorded ones: on their own clock).

    A recording keeps its order: seed s begins at another place of it, chosen by the seed; a pool is drawn
    from anew. `arrivals` of kind `trace` takes `trace_s` [requests] or, without, the recording's own.
    `requests` may be left out for a recording: all of it. Raises ValueError where arrivals are asked for that
    nobody recorded.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x51]))
    recorded = source.recorded
    if recorded is not None:
        n = requests or len(recorded)
        part = recorded.window(int(rng.integers(0, len(recorded))) if seed else 0, n)
    else:
        if requests is None:
            raise ValueError(f"{source.name} holds lengths without arrivals: say how many requests to draw")
        n = requests
        prompt, output = source.lengths().draw(n, rng)
        part = Workload(np.zeros(n), prompt, output)
    if arrivals.kind == "burst":
        return part.at_once()
    if arrivals.kind == "trace":
        if trace_s is not None:
            return replace(part, arrival_s=trace_s)
        if recorded is None:
            raise ValueError(
                f"{source.name} holds no arrivals; choose poisson, gamma:SCV, burst or trace:FILE"
            )
        return part
    return replace(part, arrival_s=gamma_gaps(n, 1.0, arrivals.scv, rng))
