"""The controller of c: from KV pressure and the last c to the next c. The operator runs it unchanged.

c bounds how long a running request may be preempted, so it sets what a preemption costs: a victim loses its
prompt and what it has generated, at most `c * r` tokens. The controller asks for the largest c whose
preemptions are worth their price,

    price(c) = m * lost * (P + 2 c o) / o  <=  limit

with m the marginal cost of a recomputed token in output tokens, `lost` the share that the prefix cache does
not give back, P and o the mean prompt and answer. The price is in answers: at 0.05 twenty preemptions cost
the engine as much as one answer. The limit lies between one for mean latency and one for TTFT, by their
weights. m, P and o are known before anybody queues. `lost` is 1 without prefix caching. With it, it is learnt
from preemptions and remembered, and is no less than what the queue lets expect: a victim's blocks are taken
once as much has been computed as memory is free, and while it waits, about what waits before it is computed.
That is known at once, whereas what was lost shows when the victims resume, in an overload minutes later. Both
are taken only from times in which somebody waits. So nothing moves c merely because it is quiet, and a burst
finds c where it wants it. The limits, the 2 and `room` are fitted to simulated engines (docs/c.md).

What is guaranteed, whatever the pressures:

- c lies in [min, max] and moves by at most two of LEVELS a decision; 0 is one of them. A change of min or max
  itself acts at once.
- Hysteresis: c is raised only where the price after the raise is below limit / (1 + margin), and lowered only
  where the present one is above limit * (1 + margin). While the price of every level stays within a factor
  (1 + margin)^2 of itself, c does not turn round for it. Learning what the prefix cache keeps may turn it
  once, and once more each time that the free memory has doubled since.
- A broken bound (share of recomputation, pause between tokens) lowers c by a level and keeps it there. It
  goes back after a calm time under load, and waits twice as long each time that the bound breaks again:
  under constant load the number of turns grows with the logarithm of time. (What broke for recomputation is
  forgotten at once when preemptions cost half as much as then.)
"""

import math
from dataclasses import dataclass, replace

LEVELS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Values that c takes: the benefit grows with the logarithm of c, about."""
_LEAST_COST = 1e-4
_LEAST_FREE = 1e-2
_MOST_CROWDED = 1e4
_MOST_EXPENSIVE = 1e12
"""In answers; only rubbish says more."""


@dataclass(frozen=True)
class Pressure:
    """What a typical engine of a workload went through over the last `interval_s`. NaN: unknown.

    Rates are per second.
    """

    interval_s: float
    waiting: float
    running: float
    usage: float
    """Share of the KV cache in use, 0 to 1."""
    free_blocks: float
    generated_s: float
    """Output tokens a second."""
    recomputed_s: float
    """Recomputed tokens a second."""
    preemptions_s: float
    """Preemptions a second, for want of memory and by policy."""
    recompute_cost: float
    """m: engine time of a recomputed token over that of an output token, with a full batch."""
    prompt_tokens: float
    answer_tokens: float
    prefix_cache: float
    """1 where the engine keeps the blocks of preempted requests until it needs them, 0 where it does not."""
    short_wait_s: float
    """Mean wait until the first token of the shortest third."""
    gap_s: float
    """Longest pause between two tokens of a request."""


@dataclass(frozen=True)
class Objective:
    """What c is to serve. Raises ValueError for values out of range.

    `latency_weight` and `ttft_weight` weigh seconds of mean latency and of mean TTFT. Recomputation may take
    `recompute_budget` of the engine's time; no request should pause longer than `gap_bound_s` between tokens.
    """

    latency_weight: float = 1.0
    ttft_weight: float = 1.0
    recompute_budget: float = 0.1
    gap_bound_s: float = math.inf
    c_min: float = 0.0
    c_max: float = 1.0

    def __post_init__(self) -> None:
        weights = (self.latency_weight, self.ttft_weight)
        if not (all(math.isfinite(w) and w >= 0 for w in weights) and sum(weights) > 0):
            raise ValueError(f"weights of latency and TTFT are {weights}; give two that are >= 0, not both 0")
        if not 0 < self.recompute_budget <= 1:
            raise ValueError(f"recompute_budget is {self.recompute_budget}; give a share in (0, 1]")
        if not self.gap_bound_s > 0:
            raise ValueError(f"gap_bound_s is {self.gap_bound_s}; give seconds > 0")
        if not 0 <= self.c_min <= self.c_max <= 1:
            raise ValueError(f"c may lie in [{self.c_min}, {self.c_max}]; give 0 <= min <= max <= 1")


@dataclass(frozen=True)
class Law:
    """Constants of the control law. The defaults were fitted once and hold for all workloads."""

    limit_latency: float = 0.025
    """Price limit when mean latency alone counts, in answers."""
    limit_ttft: float = 0.08
    """Price limit when TTFT alone counts."""
    victim_age: float = 2.0
    """Mean age of a victim over `c * o`: those that are preempted are longer than the mean."""
    margin: float = 0.25
    stride: int = 2
    """Levels by which c moves in a decision, at most."""
    start: float = 0.02
    """c before anything is known."""
    probe: float = 0.02
    """c is not lowered below this for its price before `evidence` preemptions were seen."""
    evidence: float = 8.0
    """Preemptions after which it is known what the prefix cache keeps."""
    room: float = 8.0
    """Crowding at which a preempted request has lost 1 - 1/e of its blocks before it resumes."""
    memory: float = 100.0
    """Preemptions over which what the prefix cache keeps is averaged."""
    smoothing_s: float = 20.0
    settle: int = 5
    """Decisions after a broken bound until its effect can be seen."""
    patience: int = 30
    """Calm decisions under load before the level above a broken bound is tried again, at first."""


@dataclass(frozen=True)
class ControllerState:
    """What the controller remembers from one decision to the next. NaN: not seen yet."""

    c: float
    recompute_cost: float = math.nan
    prompt_tokens: float = math.nan
    answer_tokens: float = math.nan
    prefix_cache: float = math.nan
    recompute_share: float = 0.0
    """Share of engine time that recomputation takes, smoothed."""
    free_blocks: float = math.nan
    crowding: float = 0.0
    """What waits over what fits in free memory: its peak, decaying in the time in which anybody waits."""
    seen_s: float = 0.0
    preempted: float = 0.0
    """Preemptions seen; older ones count less."""
    lost: float = 0.0
    """Of these, how many lost all they had computed; parts add up."""
    known_free_blocks: float = 0.0
    """Free blocks when what is known of the prefix cache was learnt."""
    ceiling: float = 1.0
    broken_price: float = math.nan
    """Price of a preemption when recomputation broke its bound."""
    since_break: int = 0
    calm: int = 0
    patience: int = 0


@dataclass(frozen=True)
class Decision:
    """The next c, what to remember, and why in a sentence."""

    c: float
    state: ControllerState
    reason: str


def initial_state(objective: Objective, law: Law | None = None) -> ControllerState:
    """The state before the first decision."""
    law = law or Law()
    return ControllerState(c=min(max(law.start, objective.c_min), objective.c_max), patience=law.patience)


def price_limit(objective: Objective, law: Law) -> float:
    """What a preemption may cost, in answers."""
    share = objective.ttft_weight / (objective.latency_weight + objective.ttft_weight)
    return law.limit_latency + (law.limit_ttft - law.limit_latency) * share


def price(c: float, state: ControllerState, law: Law) -> float:
    """What a preemption costs with bound `c`, in answers; NaN while it cannot be known."""
    return lost_share(state, law) * _price_of_all(c, state, law)


def lost_share(state: ControllerState, law: Law) -> float:
    """Share of a victim's tokens that must be computed again; all of them while nothing is known."""
    if state.prefix_cache == 0:
        return 1.0
    doubt = law.evidence / 2 * math.exp(-2 * state.preempted / law.evidence)
    return max((doubt + state.lost) / (doubt + state.preempted), expected_loss(state, law))


def expected_loss(state: ControllerState, law: Law) -> float:
    """Share of a victim's tokens whose blocks others take before it resumes, by how much waits."""
    return 1.0 - math.exp(-state.crowding / law.room)


def levels(objective: Objective) -> tuple[float, ...]:
    """The values that c may take under `objective`, smallest first."""
    inner = (level for level in LEVELS if objective.c_min < level < objective.c_max)
    return tuple(sorted({objective.c_min, *inner, objective.c_max}))


def decide(
    pressure: Pressure, state: ControllerState, objective: Objective, law: Law | None = None
) -> Decision:
    """The next c. Values that are no numbers are left out; nothing raises."""
    law = law or Law()
    ladder = levels(objective)
    here = _nearest(ladder, state.c)
    state = _learn(pressure, _observe(pressure, state, law), law)
    state, broken = _guard(pressure, state, objective, law)
    if broken:
        place, why = max(here - 1, 0), broken
    else:
        place, why = _by_price(state, ladder, here, price_limit(objective, law), law)
        if place > 0 and ladder[place] > state.ceiling:
            place, why = _below(ladder, state.ceiling, max(here - law.stride, 0)), "a bound broke above this"
    c = ladder[place]
    verb = "raised to" if c > state.c else "lowered to" if c < state.c else "stays"
    return Decision(c, replace(state, c=c), f"c {verb} {c:g}: {why}; {_situation(pressure)}")


def _by_price(
    state: ControllerState, ladder: tuple[float, ...], here: int, limit: float, law: Law
) -> tuple[int, str]:
    """The level, at most `stride` away, that the price asks for, and why."""
    least, most = max(here - law.stride, 0), min(here + law.stride, len(ladder) - 1)
    prices = [price(c, state, law) for c in ladder]
    now = prices[here]
    if not math.isfinite(now):
        start = _nearest(ladder, law.start)
        return min(max(start, least), most), "what a recomputed token costs is not known yet"
    place = here
    hopeless = limit * (1 + law.margin) < expected_loss(state, law) * _price_of_all(law.probe, state, law)
    if state.preempted < law.evidence and state.prefix_cache != 0 and not hopeless:
        probe = _nearest(ladder, law.probe)
        if here < probe:
            return min(probe, most), "to learn what the prefix cache keeps of preempted requests"
        least = max(least, probe)
    while place > least and prices[place] > limit * (1 + law.margin):
        place -= 1
    if place == here:
        while place < most and prices[place + 1] < limit / (1 + law.margin):
            place += 1
    verb = "costs" if place <= here else "will cost"
    told = now if place <= here else prices[place]
    return place, f"a preemption {verb} {told:.2g} answers and is worth {limit:.2g}"


def _observe(pressure: Pressure, state: ControllerState, law: Law) -> ControllerState:
    """The state with this interval's values smoothed in: a plain mean at first, later an exponential one."""
    interval_s = max(_finite(pressure.interval_s), 0.0)
    seen_s = min(state.seen_s + interval_s, law.smoothing_s)
    gain = min(interval_s / seen_s, 1.0) if seen_s > 0 else 0.0

    def smooth(old: float, new: float) -> float:
        if not (math.isfinite(new) and new >= 0):
            return old
        return old + gain * (new - old) if math.isfinite(old) else new

    cost = _geometric(state.recompute_cost, pressure.recompute_cost, gain)
    crowding = _crowding(pressure)
    spent = _finite(cost) * max(_finite(pressure.recomputed_s), 0.0)
    worked = spent + max(_finite(pressure.generated_s), 0.0)
    return replace(
        state,
        seen_s=seen_s,
        recompute_cost=cost,
        prompt_tokens=smooth(state.prompt_tokens, pressure.prompt_tokens),
        answer_tokens=smooth(state.answer_tokens, pressure.answer_tokens),
        prefix_cache=pressure.prefix_cache if pressure.prefix_cache in (0, 1) else state.prefix_cache,
        free_blocks=smooth(state.free_blocks, pressure.free_blocks),
        # Up at once, because what is lost until it is noticed is expensive; down slowly, so that c does
        # not turn.
        crowding=max(smooth(state.crowding, crowding), _finite(crowding)),
        recompute_share=smooth(state.recompute_share, spent / worked if worked > 0 else 0.0),
    )


def _crowding(pressure: Pressure) -> float:
    """What waits over what fits in free memory, both in requests as large as those that run; NaN while
    nobody waits or runs."""
    if not (pressure.waiting >= 1 and pressure.running > 0 and 0 < pressure.usage <= 1):
        return math.nan
    free = max(pressure.running * (1.0 - pressure.usage) / pressure.usage, _LEAST_FREE)
    return min(pressure.waiting / free, _MOST_CROWDED)


def _learn(pressure: Pressure, state: ControllerState, law: Law) -> ControllerState:
    """The state with what this interval's preemptions lost.

    What is known is forgotten when there is twice the free memory in which it was learnt: without
    preemptions nothing else would show that the prefix cache has room again.
    """
    full = _victim_tokens(state.c, state, law)
    preemptions = _finite(pressure.preemptions_s * pressure.interval_s)
    recomputed = _finite(pressure.recomputed_s * pressure.interval_s)
    free = _finite(state.free_blocks)
    if preemptions > 0 and full > 0:
        kept = math.exp(-preemptions / law.memory)
        preempted = state.preempted * kept + preemptions
        lost = min(state.lost * kept + max(recomputed, 0.0) / full, preempted)
        known = max(state.known_free_blocks, free)
        return replace(state, preempted=preempted, lost=lost, known_free_blocks=known)
    if state.preempted >= law.evidence and free > 2 * max(state.known_free_blocks, 1.0):
        return replace(state, preempted=0.0, lost=0.0, known_free_blocks=free)
    return state


def _guard(
    pressure: Pressure, state: ControllerState, objective: Objective, law: Law
) -> tuple[ControllerState, str]:
    """The state with its ceiling up to date, and the broken bound for which c must go down, if any."""
    broken, at_price = "", math.nan
    if state.recompute_share > objective.recompute_budget:
        broken = f"recomputation takes {state.recompute_share:.0%} of the engine's time"
        at_price = price(state.c, state, law)
    elif pressure.gap_s > objective.gap_bound_s:
        broken = f"a request paused {pressure.gap_s:.3g} s between two tokens"
    state = replace(state, since_break=state.since_break + 1)
    ladder = levels(objective)
    if broken:
        if state.since_break < law.settle and state.ceiling < 1.0:
            return replace(state, calm=0), ""
        ceiling = ladder[max(_nearest(ladder, state.c) - 1, 0)]
        patience = min(2 * max(state.patience, 1), 1 << 30)
        broke = replace(state, ceiling=ceiling, since_break=0, calm=0, patience=patience)
        return replace(broke, broken_price=at_price), broken
    above = next((level for level in ladder if level > state.ceiling), 1.0)
    if state.ceiling < 1.0 and price(above, state, law) < state.broken_price / 2:
        return replace(state, ceiling=1.0, calm=0, patience=law.patience, broken_price=math.nan), ""
    calm = state.calm + (pressure.waiting > 0)
    if state.ceiling < 1.0 and calm >= state.patience:
        return replace(state, ceiling=above, calm=0), ""
    return replace(state, calm=calm), ""


def _price_of_all(c: float, state: ControllerState, law: Law) -> float:
    """What a preemption would cost if the victim lost all it had computed, in answers."""
    price = state.recompute_cost * _victim_tokens(c, state, law) / max(state.answer_tokens, 1.0)
    return price if math.isnan(price) else min(price, _MOST_EXPENSIVE)


def _victim_tokens(c: float, state: ControllerState, law: Law) -> float:
    """What a victim has computed when it is preempted, in tokens."""
    return state.prompt_tokens + law.victim_age * c * state.answer_tokens


def _below(ladder: tuple[float, ...], ceiling: float, least: int) -> int:
    """The highest level at or below `ceiling`, or `least` where that is higher."""
    return max(least, sum(level <= ceiling for level in ladder) - 1)


def _nearest(ladder: tuple[float, ...], c: float) -> int:
    return min(range(len(ladder)), key=lambda i: abs(ladder[i] - c))


def _geometric(old: float, new: float, gain: float) -> float:
    """A ratio smoothed in its logarithm, so that it falls as soon as it rises; `old` where `new` is none."""
    if not (math.isfinite(new) and new >= 0):
        return old
    new = max(new, _LEAST_COST)
    return float(old ** (1.0 - gain) * new**gain) if math.isfinite(old) else new


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _situation(pressure: Pressure) -> str:
    short = f", short requests wait {pressure.short_wait_s:.2g} s" if pressure.short_wait_s > 0 else ""
    return f"{pressure.running:.0f} run, {pressure.waiting:.0f} wait, KV {pressure.usage:.0%} in use{short}"
