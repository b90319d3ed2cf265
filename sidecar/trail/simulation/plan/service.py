"""A batched engine as the one server of the queue: at which rate it works, and what that leaves out."""

from dataclasses import dataclass

import numpy as np

from trail.simulation.engine.steptime import StepModel
from trail.simulation.engine.workload import Pool


@dataclass(frozen=True)
class Service:
    """One replica: output tokens a second with every slot taken, prompts included in the time.

    `slots` is how many requests run at once, where known. Raises ValueError for values that are not positive.
    """

    tokens_per_s: float
    slots: int | None
    origin: str

    def __post_init__(self) -> None:
        if not (np.isfinite(self.tokens_per_s) and self.tokens_per_s > 0):
            raise ValueError(f"a replica must make tokens, got {self.tokens_per_s:g} tokens/s")
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"a replica needs at least one slot, got {self.slots}")

    def latency_s(self, mean_tokens: float, wait_s: float, load: float) -> float | None:
        """Mean latency on `slots` slots at a load, from the wait behind others on the one server.

        A request alone takes a slot's time a token, not the whole engine's; it waits only when all slots are
        taken. The wait is the one server's times P(all slots taken) / load, Erlang's C: exact for FCFS with
        exponential lengths, an approximation otherwise (Lee, Longton 1959). None where slots are not known.
        """
        if self.slots is None:
            return None
        return mean_tokens * self.slots / self.tokens_per_s + wait_s * erlang_c(self.slots, load) / load


def service_of_steps(model: StepModel, slots: int, lengths: Pool) -> Service:
    """A replica whose steps take what `model` says with all slots taken by requests such as these.

    In a step every slot gets a token; prompt tokens come at the rate at which requests start, and the
    contexts read are those of an average output token.
    """
    prompt, output = (np.asarray(v, dtype=np.float64) for v in (lengths.prompt_tokens, lengths.output_tokens))
    context = float((output * (prompt + (output + 1) / 2)).sum() / output.sum())
    begun = slots / output.mean()
    step_s = model.seconds(slots, begun * prompt.mean(), slots * context, begun)
    return Service(
        slots / step_s, slots, f"steps of {1e3 * step_s:.3g} ms by {model.name} with {slots} slots"
    )


def erlang_c(servers: int, load: float) -> float:
    """P(all servers busy) in M/M/k at a load below 1 a server (Erlang 1917, by the recursion of Erlang's B).
    P(all servers busy) in M/M/k at a load below 1 a server (Erlang 1917, by the recursion of Erlang's B)."""
    offered, blocked = servers * load, 1.0
    for k in range(1, servers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return blocked / (1 - load * (1 - blocked))
