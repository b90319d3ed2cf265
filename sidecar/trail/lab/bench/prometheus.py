"""Counters from vLLM's `/metrics` page."""

import math
from collections.abc import Mapping

PREEMPTIONS = "vllm:num_preemptions_total"
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"


def parse_samples(text: str) -> dict[str, float]:
    """Samples of a Prometheus text page, summed over labels; lines that are no samples are passed over."""
    out: dict[str, float] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name_end = line.find("{") if "{" in line else line.find(" ")
        value_text = line[line.rfind("}") + 1 :].split() if "{" in line else line.split()[1:]
        if name_end <= 0 or not value_text:
            continue
        try:
            value = float(value_text[0])
        except ValueError:
            continue
        if math.isfinite(value):
            out[line[:name_end]] = out.get(line[:name_end], 0.0) + value
    return out


def counter_delta(before: Mapping[str, float], after: Mapping[str, float], name: str) -> int | None:
    """How far a counter moved; None where the page does not have it."""
    if name not in after:
        return None
    return round(after[name] - before.get(name, 0.0))
