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


SERVER_TIMES = {
    "ttft_s": "vllm:time_to_first_token_seconds",
    "queue_s": "vllm:request_queue_time_seconds",
    "prefill_s": "vllm:request_prefill_time_seconds",
    "decode_s": "vllm:request_decode_time_seconds",
    "latency_s": "vllm:e2e_request_latency_seconds",
}
"""What vLLM itself times of a request: `queue_s`, `prefill_s` and `decode_s` in the engine core, the rest in
its API server."""


def mean_times(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float | None]:
    """Means of SERVER_TIMES over the requests between two pages; None where none ended."""
    out: dict[str, float | None] = {}
    for key, name in SERVER_TIMES.items():
        total, count = (after.get(n, 0.0) - before.get(n, 0.0) for n in (f"{name}_sum", f"{name}_count"))
        out[key] = total / count if count > 0 else None
    return out


def counter_delta(before: Mapping[str, float], after: Mapping[str, float], name: str) -> int | None:
    """How far a counter moved; None where the page does not have it."""
    if name not in after:
        return None
    return round(after[name] - before.get(name, 0.0))
