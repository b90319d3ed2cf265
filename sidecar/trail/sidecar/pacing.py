"""How often the sidecar does things: one table, in two profiles.

Every pause is a choice between fresh predictions and a core for vLLM. `shared-cores` takes little from a
vLLM that keeps all cores busy; `own-cores` predicts from the newest tokens in every step of 10 ms or more.
What the supervisor does around the sidecar's process (`sidecar.process`) has its own times.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Pacing:
    """Times in seconds. The values here are those of `shared-cores`.

    A "rest" without a unit is a pause in lengths of the CPU time that the work before it took.
    """

    name: str

    loop_rest: float = 39.0
    """After a round of the loop that had work: a fortieth of a core, so that vLLM keeps its cores."""
    loop_rest_least_s: float = 0.5e-3
    """Other threads get the interpreter, however short the round was."""
    loop_rest_most_s: float = 30e-3
    """Longest rest where rounds have a core to themselves: a rank gets older by the pause."""
    loop_rest_crowded_most_s: float = 100e-3
    """Longest rest where rounds wait for a core."""
    loop_rest_unhurried_s: float = 100e-3
    """Rest while nothing depends on new predictions."""
    crowded_share: float = 0.3
    """Share of a round's time spent waiting for a core from which cores are taken to be scarce."""
    crowded_memory: float = 0.95
    """Weight of the past in that share, a round: one late round is no crowd."""
    loop_look_most_s: float = 5e-3
    """Longest pause between looks that find no work: frames come once a step."""
    loop_look_growth: float = 1.3
    """Each look in vain makes the next pause so much longer."""
    idle_after_s: float = 0.5
    """So long nobody must have waited before predictions rest: queues come and go in bursts."""
    beat_every_s: float = 20e-3
    """Heartbeats, and looks for new requests, within a longer rest: engines wait 100 ms for a heartbeat."""
    queue_look_every_s: float = 0.1
    """Estimates of how long the queue is: about as often as engines report it."""
    unclaimed_rows_s: float = 2.0
    """A row waits so long for its request to be announced: the ring is faster than the stream."""
    yield_late_s: float = 10e-3
    """A core that was offered to others and came back later than this was missed,"""
    yield_again_s: float = 1.0
    """and none is offered for so long: the heartbeat must not depend on how others use it."""

    prompt_rest: float = 19.0
    """After a batch of prompts: those that come meanwhile share the next one."""
    prompt_rest_most_s: float = 50e-3
    """A request without a prediction is ranked by the mean for so long."""
    prompt_look_s: float = 0.2
    """Between looks whether to stop, while no prompt comes."""
    quality_rest: float = 39.0
    """After judging requests that ended: those that end meanwhile share the next look."""
    quality_rest_least_s: float = 0.2
    """Nothing depends on a verdict within less."""

    health_every_s: float = 0.2
    """Health is brought up to date: probes ask every few seconds."""
    hung_after_s: float = 1.0
    """A loop without a round for so long does not serve."""
    thread_switch_s: float = 0.5e-3
    """The loop gets its turn while another thread runs Python code for long."""
    caller_look_s: float = 0.5
    """Between looks whether a caller of a stream is still there."""
    decisions_write_every_s: float = 0.25
    """Lines of the decision log go to the disk together."""
    decisions_load_every_s: float = 1.0
    """An engine's load is logged: the simulator fits its step times to it."""
    traces_send_every_s: float = 1.0
    """Spans leave in batches."""

    redis_report_every_s: float = 2.0
    """Reports of KV pressure: the operator's controller decides no more often."""
    redis_sample_every_s: float = 0.2
    """Samples that a report sums up."""
    redis_reread_every_s: float = 5.0
    """c is read although nothing said that it changed: hints may be lost."""
    redis_retry_first_s: float = 0.5
    """First pause before Redis is tried again; each doubles, and half of it is drawn at random,"""
    redis_retry_most_s: float = 30.0
    """up to this one: an operator's pods must not all come back at once."""


SHARED_CORES = Pacing("shared-cores")

OWN_CORES = replace(
    SHARED_CORES,
    name="own-cores",
    # What comes just after a look is predicted from at most two rounds and a rest later: within 10 ms, and
    # so before the next step ends, where a round takes up to 3 ms.
    loop_rest=1.0,
    loop_rest_most_s=3e-3,
    loop_rest_crowded_most_s=3e-3,
    loop_rest_unhurried_s=3e-3,
    loop_look_most_s=1e-3,
    # Never: predictions cost vLLM no more than their export, and are there when a queue forms.
    idle_after_s=math.inf,
    prompt_rest=1.0,
)

PROFILES = {profile.name: profile for profile in (SHARED_CORES, OWN_CORES)}
AUTO = "auto"
CHOICES = (AUTO, *PROFILES)


def choose(wanted: str, own_cores: int) -> Pacing:
    """The profile that `wanted`, one of CHOICES, names; for `auto` by the whole cores that are the process's
    own (`sidecar.process.cores.own_cores`)."""
    if wanted == AUTO:
        return OWN_CORES if own_cores else SHARED_CORES
    return PROFILES[wanted]
