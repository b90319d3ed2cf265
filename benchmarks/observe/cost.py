"""`python -m benchmarks.observe.cost`: what tracing costs vLLM, at a tenth of all requests and at all.

Two servers with a model of random weights under the same policy: one without tracing, one with vLLM's and
TRAIL's own, whose spans and events an OTLP receiver in this process takes. In every round each arm gets the
same saturated work, in an order that rotates; which requests are traced is said by the client's
`traceparent`. The other server stands idle, which takes hundredths of a CPU (`idle_cpu_share`), and arms
alternate within seconds, so that the machine's drift cancels.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.observe.receiver import Receiver
from benchmarks.overhead import dummy
from benchmarks.overhead.measure import cpu_s, with_interval
from benchmarks.stack import stack_of
from trail.demo import demo_model_dir
from trail.demo.tokenizer import token_ids
from trail.serving.setup import SetupError
from trail.serving.stack import ServerError, Stack
from trail.wire.files import write_json
from trail.wire.names import ENV_OTLP_ENDPOINT

SHARES = {"off": 0.0, "tenth": 0.1, "all": 1.0}
"""Of the requests that are traced. `off` is the server that has no tracing at all."""
ASKED = {"tenth": 0.99, "all": 0.97}
"""Least throughput, and most engine CPU time a token when inverted, of that without tracing."""
POLICY = "trail-c0.8"
_SLOTS = 16
_PROMPT_TOKENS, _OUTPUT_TOKENS = 32, 64
_START_LIMIT_S, _REQUEST_LIMIT_S = 300.0, 300.0
_VLLM = ("--served-model-name", "dummy", "--load-format", "dummy", "--dtype", "float32",
         "--max-num-seqs", str(_SLOTS), "--block-size", "32", "--max-model-len", "512")  # fmt: skip
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Block:
    """One arm's part of a round. CPU seconds: of vLLM's processes, of the sidecar, and of the idle server."""

    arm: str
    tokens: int
    seconds: float
    engine_cpu_s: float
    sidecar_cpu_s: float
    idle_cpu_s: float

    @property
    def tokens_per_s(self) -> float:
        """Throughput."""
        return self.tokens / self.seconds

    @property
    def cpu_us_per_token(self) -> float:
        """Of API server, engine core and worker."""
        return 1e6 * self.engine_cpu_s / self.tokens


def summarise(rounds: Sequence[Mapping[str, Block]]) -> dict[str, Any]:
    """Ratios to `off` within each round, as means with 95 % intervals, and whether the means reach ASKED."""
    out: dict[str, Any] = {
        "step_ms": [1e3 * _SLOTS / r["off"].tokens_per_s for r in rounds],
        "idle_cpu_share": max(block.idle_cpu_s / block.seconds for r in rounds for block in r.values()),
        "rounds": [{arm: asdict(block) for arm, block in r.items()} for r in rounds],
    }
    for arm, asked in ASKED.items():
        throughput = [r[arm].tokens_per_s / r["off"].tokens_per_s for r in rounds]
        cpu = [r["off"].cpu_us_per_token / r[arm].cpu_us_per_token for r in rounds]
        entry: dict[str, Any] = {
            "asked": asked,
            "throughput": with_interval(throughput),
            "tokens_per_cpu": with_interval(cpu),
        }
        entry["reached"] = min(entry["throughput"]["mean"], entry["tokens_per_cpu"]["mean"]) >= asked
        out[arm] = entry
    return out


def traceparent(rng: np.random.Generator, share: float) -> str:
    """A client's trace context (W3C), sampled with the probability `share`."""
    sampled = rng.random() < share
    return f"00-{rng.bytes(16).hex()}-{rng.bytes(8).hex()}-{int(sampled):02x}"


def _cpu_s(stack: Stack) -> list[float]:
    """CPU seconds so far, of vLLM's processes and of the sidecar."""
    return [cpu_s(child.pid) for child in (stack.vllm, stack.sidecar) if child is not None]


async def measure(work: Path, rounds: int, requests: int, progress: Progress) -> dict[str, Any]:
    """Both servers, `rounds` rounds and one before them that does not count. Raises ServerError."""
    model = dummy.write_model(work / "model", len(token_ids()))
    for name in _TOKENIZER:
        shutil.copyfile(demo_model_dir() / name, model / name)
    predictor = dummy.write_predictor(work / "predictor", model, len(token_ids()))
    receiver = Receiver().start()
    servers: dict[bool, Stack] = {}
    try:
        for traced in (False, True):
            endpoint = receiver.endpoint if traced else ""
            servers[traced] = stack_of(
                str(model),
                _VLLM,
                POLICY,
                work / ("traced" if traced else "plain"),
                predictor=predictor,
                environ={**os.environ, ENV_OTLP_ENDPOINT: endpoint},
            )
            servers[traced].start()
            await asyncio.to_thread(servers[traced].until_ready, _START_LIMIT_S)
        found: list[dict[str, Block]] = []
        rng = np.random.default_rng(0)
        task = progress.add_task("rounds", total=(rounds + 1) * len(SHARES))
        for number in range(rounds + 1):
            order = list(SHARES)
            order = order[number % len(order) :] + order[: number % len(order)]
            blocks = {}
            for arm in order:
                traced = arm != "off"
                before, idle_before = _cpu_s(servers[traced]), sum(_cpu_s(servers[not traced]))
                began_s = time.monotonic()
                tokens = await _saturate(servers[traced].base_url, requests, SHARES[arm], number, rng)
                seconds = time.monotonic() - began_s
                after = _cpu_s(servers[traced])
                blocks[arm] = Block(
                    arm, tokens, seconds, after[0] - before[0], after[1] - before[1],
                    sum(_cpu_s(servers[not traced])) - idle_before,
                )  # fmt: skip
                progress.advance(task)
            if number:
                found.append(blocks)
        return {"policy": POLICY, "requests": requests, "output_tokens": _OUTPUT_TOKENS, **summarise(found)}
    finally:
        for server in servers.values():
            await asyncio.to_thread(server.stop)
        receiver.stop()


async def _saturate(url: str, requests: int, share: float, seed: int, rng: np.random.Generator) -> int:
    """All requests at once; tokens generated when the last has ended. Raises ServerError."""
    ids = token_ids()
    timeout = aiohttp.ClientTimeout(total=_REQUEST_LIMIT_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def one(i: int) -> int:
            body = {
                "model": "dummy", "max_tokens": _OUTPUT_TOKENS, "ignore_eos": True, "temperature": 0.0,
                "prompt": [(1009 * seed + 7 * i + j) % len(ids) for j in range(_PROMPT_TOKENS)],
            }  # fmt: skip
            headers = {"traceparent": traceparent(rng, share)}
            async with http.post(f"{url}/v1/completions", json=body, headers=headers) as response:
                answer = await response.json()
                if response.status != 200:
                    raise ServerError(f"{url} answers {response.status}: {json.dumps(answer)[:300]}")
                return int(answer["usage"]["completion_tokens"])

        return sum(await asyncio.gather(*(one(i) for i in range(requests))))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when both targets are reached, 1 when one is not, 2 when it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observe.cost", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/observe"), help="directory (%(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="of every arm, at least 2 (%(default)s)")
    parser.add_argument("--requests", type=int, default=32, help="of an arm in a round (%(default)s)")
    args = parser.parse_args(argv)
    if args.rounds < 2 or args.requests < _SLOTS:
        parser.error(f"--rounds must be at least 2, --requests at least {_SLOTS}")
    work = args.out / "cost"
    work.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, highlight=False)
    try:
        with Progress(console=console) as progress:
            document = asyncio.run(measure(work, args.rounds, args.requests, progress))
    except (ServerError, aiohttp.ClientError, OSError, SetupError) as error:
        console.print(f"benchmarks.observe.cost: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    write_json(args.out / "tracing-cost.json", document)
    for arm, asked in ASKED.items():
        entry = document[arm]
        for name, what in (("throughput", "throughput"), ("tokens_per_cpu", "tokens per CPU second")):
            value = entry[name]
            console.print(
                f"traced {SHARES[arm]:.0%}: {what} x{value['mean']:.3f} [{value['low']:.3f},"
                f" {value['high']:.3f}] of that without tracing, {asked} asked"
            )
    console.print(f"written: {args.out / 'tracing-cost.json'}")
    return 0 if all(document[arm]["reached"] for arm in ASKED) else 1


if __name__ == "__main__":
    sys.exit(main())
