"""Mean response times of policies over load, and what follows for a target: everything `plan.json` says."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trail.policy.spec import PolicySpec, parse_policy
from trail.report.stats import summary
from trail.simulation.plan.mg1 import JointLaw, LimitedPreemption, fcfs_times, joint_law
from trail.simulation.plan.queue_sim import Requests, fcfs_response_times, response_times
from trail.simulation.plan.replicate import Effort, PairSource, controlled_mean, expected_controls, replicate
from trail.simulation.plan.service import Service

Floats = NDArray[np.float64]

CS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
NEAR_BEST = 1.01
EFFORT = Effort(requests=20_000, margin=5_000)
REPLICATIONS = 12
_HIGHEST_LOAD = 0.999


@dataclass(frozen=True)
class Arm:
    """A policy in the queue: `times` gives E[T] of every pair of the law at an arrival rate, in seconds, and
    `simulate` the response times of drawn requests."""

    name: str
    times: Callable[[float], Floats]
    simulate: Callable[[Requests], Floats]


def parse_plan_arms(text: str) -> dict[str, PolicySpec]:
    """Policies by name from a list such as `fcfs,sjf,trail-prompt-c0.2`, each one that the closed form knows.

    Raises ValueError saying what to write instead.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"--arms {text!r}: name policies, each once, as in fcfs,sjf,trail-prompt-c0.2")
    specs = {}
    for name in names:
        spec = parse_policy(name)
        if spec.name not in ("fcfs", "sjf", "trail-prompt", "oracle"):
            raise ValueError(
                f"--arms {name}: the closed form knows one prediction a request, made before it runs: fcfs,"
                " sjf, trail-prompt-c0.2, oracle-c1; for the others use trail simulate"
            )
        if spec.kv_reserve_tokens >= 0:
            raise ValueError(f"--arms {name}: memory is no part of the closed form; leave out the reserve")
        specs[name] = spec
    return specs


def make_arm(name: str, spec: PolicySpec, law: JointLaw) -> Arm:
    """The arm of a policy over a law in seconds of service."""
    if spec.name == "fcfs":
        return Arm(name, partial(fcfs_times, law), fcfs_response_times)
    c = 0.0 if spec.name == "sjf" else spec.c
    if spec.name == "oracle":
        exact = joint_law(law.size, law.size, law.weight)
        return Arm(name, LimitedPreemption(exact, c).times, partial(_simulate_exact, c=c))
    return Arm(name, LimitedPreemption(law, c).times, partial(response_times, c=c))


@dataclass(frozen=True)
class Question:
    """What is asked: requests a second over all replicas, how many of these there are, the loads to show, a
    target for the mean latency in seconds, and the seed of the simulation."""

    rate_per_s: float
    replicas: int
    loads: tuple[float, ...]
    target_s: float | None
    seed: int


class Study:
    """Policies over one law of tokens on one kind of replica."""

    def __init__(self, tokens: JointLaw, service: Service, arms: Mapping[str, PolicySpec]) -> None:
        self.service = service
        self.mean_tokens = tokens.mean_size
        rate = service.tokens_per_s
        self.law = joint_law(tokens.size / rate, tokens.prediction / rate, tokens.weight)
        self.arms = [make_arm(name, spec, self.law) for name, spec in arms.items()]
        self.capacity_per_s = 1 / self.law.mean_size

    def figures(self, arm: Arm, load: float) -> dict[str, float | None]:
        """Means at a load: `response_s` and `slowdown` of the queue, `latency_s` on the replica's slots."""
        times = arm.times(self.law.rate(load))
        response = self.law.mean(times)
        return {
            "response_s": response,
            "slowdown": self.law.mean(times / self.law.size),
            "latency_s": self.service.latency_s(self.mean_tokens, response - self.law.mean_size, load),
        }

    def judged_s(self, arm: Arm, load: float) -> float:
        """What a target is compared with: latency on slots where they are known, else response time."""
        found = self.figures(arm, load)
        value = found["response_s"] if found["latency_s"] is None else found["latency_s"]
        return float(value or 0.0)

    def highest_load(self, arm: Arm, target_s: float) -> float | None:
        """The load up to which the mean stays within the target; None where it never does."""
        low, high = 1e-3, _HIGHEST_LOAD
        if self.judged_s(arm, low) > target_s:
            return None
        if self.judged_s(arm, high) <= target_s:
            return high
        while high - low > 1e-4:
            middle = (low + high) / 2
            low, high = (middle, high) if self.judged_s(arm, middle) <= target_s else (low, middle)
        return low

    def answer(
        self, question: Question, progress: Callable[[int], None] = lambda _done: None
    ) -> dict[str, Any]:
        """Everything about a question, ready for JSON; `progress` hears of every arm that is done."""
        load = question.rate_per_s / question.replicas / self.capacity_per_s
        steady = load < 1
        arms: dict[str, Any] = {}
        for arm in self.arms:
            curve = [self.figures(arm, at) for at in question.loads]
            arms[arm.name] = {key: [point[key] for point in curve] for key in curve[0]}
            arms[arm.name]["at"] = self.figures(arm, load) if steady else None
            arms[arm.name]["target"] = self._target(arm, question)
            progress(1)
        if steady:
            for name, simulated in self.simulated(load, question.seed).items():
                arms[name]["at"]["simulated"] = simulated
        return {
            "service": {**asdict(self.service), "requests_per_s": self.capacity_per_s},
            "question": {**asdict(question), "load": load},
            "loads": list(question.loads),
            "arms": arms,
            "c": self.by_c(load) if steady else None,
        }

    def simulated(self, load: float, seed: int) -> dict[str, dict[str, Any]]:
        """Every arm on the same drawn requests: mean with its 95 % interval, median and tail, in seconds."""
        source = PairSource(self.law)
        arms = {arm.name: arm.simulate for arm in self.arms}
        runs = [replicate(source, load, arms, seed=(seed, k), effort=EFFORT) for k in range(REPLICATIONS)]
        controls, expected = np.array([run.controls for run in runs]), expected_controls(source, load)
        found = {}
        for name, arm in arms.items():
            means = np.array([run.responses[name].mean() for run in runs])
            # First come, first served is the last control: with itself it would have no interval.
            used = slice(-1) if arm is fcfs_response_times else slice(None)
            mean = controlled_mean(means, controls[:, used], expected[used])
            spread = summary(np.concatenate([run.responses[name] for run in runs])) or {}
            found[name] = {**spread, "mean": mean.value, "half_width": mean.half_width}
        return found

    def by_c(self, load: float) -> dict[str, Any]:
        """Mean response time of limited preemption for every c of `CS`, the best c, and the least near it."""
        rate = self.law.rate(load)
        means = [self.law.mean(LimitedPreemption(self.law, c).times(rate)) for c in CS]
        best = min(means)
        near = next(c for c, mean in zip(CS, means, strict=True) if mean <= NEAR_BEST * best)
        return {"c": list(CS), "response_s": means, "best": CS[means.index(best)], "near_best": near}

    def _target(self, arm: Arm, question: Question) -> dict[str, Any] | None:
        if question.target_s is None:
            return None
        load = self.highest_load(arm, question.target_s)
        if load is None:
            return {"highest_load": None, "requests_per_s": None, "replicas": None}
        rate = load * self.capacity_per_s
        return {
            "highest_load": load,
            "requests_per_s": rate,
            "replicas": max(1, math.ceil(question.rate_per_s / rate)),
        }


def loads_from(text: str) -> tuple[float, ...]:
    """Loads from a list such as `0.5,0.7,0.9`, ascending. Raises ValueError outside (0, 1)."""
    try:
        loads = sorted({float(part) for part in text.split(",")})
    except ValueError:
        loads = []
    if not loads or not (loads[0] > 0 and loads[-1] <= _HIGHEST_LOAD):
        raise ValueError(
            f"--loads {text!r}: write loads between 0 and 1, as in 0.5,0.7,0.9; a queue at 1 grows"
        )
    return tuple(loads)


def error_of(law: JointLaw) -> float:
    """Mean absolute error of the predictions, in the law's unit."""
    return law.mean(np.abs(law.prediction - law.size))


def _simulate_exact(requests: Requests, c: float) -> Floats:
    return response_times(replace(requests, prediction=requests.size), c)
