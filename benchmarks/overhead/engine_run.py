"""One saturated run of one offline engine, in a process of its own; prints one JSON line at the end.

Started by `benchmarks.overhead.measure`, with TRAIL switched on or off by the environment alone.
"""

import json
import os
import sys
import time
from typing import Any

import psutil

from trail.wire.names import ENV_STATS


def engine_cpu_s() -> float:
    """CPU seconds spent so far by this process's descendants: engine core and workers, not this driver."""
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def run(settings: dict[str, Any]) -> dict[str, float]:
    """Load the model, warm up, and generate exactly `output_tokens` for each of `requests` prompts.

    Every request has the same length in both arms, so the order of requests cannot change the work.
    """
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=settings["model"],
        dtype="float32",
        load_format=settings["load_format"],
        max_model_len=settings["prompt_tokens"] + settings["output_tokens"] + 1,
        max_num_seqs=settings["max_num_seqs"],
        max_num_batched_tokens=16384,
        block_size=32,
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
        disable_log_stats=True,
    )
    vocabulary = settings["vocabulary"]

    def prompts(n: int, seed: int) -> list[dict[str, list[int]]]:
        length = settings["prompt_tokens"]
        return [
            {"prompt_token_ids": [(seed + 7 * i + j) % vocabulary for j in range(length)]} for i in range(n)
        ]

    def params(tokens: int) -> SamplingParams:
        return SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)

    # The first requests also meet a sidecar that has just attached.
    llm.generate(prompts(2 * settings["max_num_seqs"], 1), params(16), use_tqdm=False)
    cpu_before = engine_cpu_s()
    start = time.monotonic()
    outputs = llm.generate(
        prompts(settings["requests"], 2), params(settings["output_tokens"]), use_tqdm=False
    )
    wall_s = time.monotonic() - start
    cpu_s = engine_cpu_s() - cpu_before
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    # Statistics files are written every five seconds; let the last window reach the disk.
    if os.environ.get(ENV_STATS) == "1":
        time.sleep(5.5)
        llm.generate(prompts(2, 3), params(2), use_tqdm=False)
    return {"tokens": tokens, "wall_s": wall_s, "engine_cpu_s": cpu_s, "slots": settings["max_num_seqs"]}


if __name__ == "__main__":
    result = run(json.loads(sys.argv[1]))
    sys.stdout.write("\nRESULT " + json.dumps(result) + "\n")
