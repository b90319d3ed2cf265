"""What page and terminal say in words, computed from the plan's document, for better and for worse."""

from collections.abc import Mapping
from typing import Any

from trail.report.table import seconds_text

Document = Mapping[str, Any]

MISLEADS = (
    "A replica is taken as one server that makes tokens at the rate of the full engine. A request that"
    " runs alone gets no more than one slot's rate: at low load an answer takes longer than the response"
    " time says. With --slots this is put right for the mean, by an approximation.",
    "With many slots a request waits only when all are taken, so that policies differ less below a load"
    " of about 0.9 than on the one server.",
    "Preemption is free here. In vLLM it recomputes: read off which c the order can use, and weigh the"
    " cost of it with trail simulate or trail bench.",
    "Arrivals are Poisson and the load is constant. Bursts make queues longer, and policies differ more.",
    "Order is by one prediction made before a request runs, less the tokens generated. Refined"
    " predictions, a guard for the tail and limited memory are not in the theory.",
)


def judged(figures: Mapping[str, float | None]) -> float:
    """The latency on slots where it is known, else the response time, in seconds."""
    latency, response = figures["latency_s"], figures["response_s"]
    return float((response if latency is None else latency) or 0.0)


def judged_curve(arm: Mapping[str, Any]) -> list[float]:
    """The same over the loads of the plan."""
    return [
        judged({"latency_s": latency, "response_s": response})
        for latency, response in zip(arm["latency_s"], arm["response_s"], strict=True)
    ]


def measure_name(document: Document) -> str:
    """What `judged` gives: mean latency on so many slots, or mean response time of the queue."""
    slots = document["service"]["slots"]
    return "mean response time" if slots is None else f"mean latency on {slots:,} slots"


def headline(document: Document) -> str:
    """The result in a sentence."""
    load = document["question"]["load"]
    if load >= 1:
        return f"{load:.2f} times the capacity is asked for: the queue grows for as long as that lasts"
    arms = {name: arm for name, arm in document["arms"].items() if not name.startswith("oracle")}
    best = min(arms, key=lambda name: judged(arms[name]["at"]))
    value = seconds_text(judged(arms[best]["at"]))
    text = f"At load {load:.2f}, {best} has the lowest {measure_name(document)}: {value} s"
    if "fcfs" in arms and best != "fcfs":
        times = judged(arms["fcfs"]["at"]) / judged(arms[best]["at"])
        text += f", {times:.2f} times lower than first come, first served"
    return text


def findings(document: Document) -> list[str]:
    """Sentences below the headline: capacity, c, target, how far simulation and closed form are apart."""
    service, question, by_c = document["service"], document["question"], document["c"]
    sentences = [
        f"A replica makes {service['tokens_per_s']:,.0f} tokens/s ({service['origin']}):"
        f" {service['requests_per_s']:.3g} requests/s of {document['workload']['mean_tokens']:,.0f} tokens."
        f" {question['rate_per_s']:.3g} requests/s on {question['replicas']:,}"
        f" replica{'s' if question['replicas'] != 1 else ''} are a load of {question['load']:.3g}."
    ]
    if by_c is not None:
        means = dict(zip(by_c["c"], by_c["response_s"], strict=True))
        sentences.append(
            f"By order alone c = {by_c['best']:g} is best ({seconds_text(means[by_c['best']])} s mean"
            f" response time, {seconds_text(means[0.0])} s without preemption); c = {by_c['near_best']:g} is"
            " the least that comes within 1 % of it."
        )
        apart = [
            abs(arm["at"]["simulated"]["mean"] / arm["at"]["response_s"] - 1)
            for arm in document["arms"].values()
        ]
        sentences.append(
            f"Simulated means of the same queue are within {100 * max(apart):.1f} % of the closed form."
        )
    if question["target_s"] is not None:
        sentences += [_target(name, arm["target"], question) for name, arm in document["arms"].items()]
    return sentences


def _target(name: str, found: Mapping[str, Any], question: Mapping[str, Any]) -> str:
    target = seconds_text(question["target_s"])
    if found["highest_load"] is None:
        return f"{name}: a mean of {target} s is out of reach at any load; a request alone takes longer."
    n = found["replicas"]
    return (
        f"{name}: a mean of {target} s holds up to load {found['highest_load']:.3f},"
        f" {found['requests_per_s']:.3g} requests/s a replica: {n:,} replica{'s' if n != 1 else ''} for"
        f" {question['rate_per_s']:.3g} requests/s."
    )
