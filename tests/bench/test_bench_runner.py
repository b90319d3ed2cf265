"""The benchmark's sequence, with an in-process server in vLLM's place."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from fake_openai import FakeServer
from test_bench_config import CONFIG

from trail.bench import runner
from trail.bench.config import BenchConfig, parse_arms, parse_load
from trail.bench.runner import Benchmark
from trail.bench.server import Counters
from trail.bench.workload import Prompt
from trail.commands.bench import _until_signal
from trail.policy.spec import PolicySpec
from trail.serving.control import EngineState
from trail.serving.setup import ModelSource, PredictorSource
from trail.serving.stack import ServerError

MODEL = ModelSource("m", "m", None, local=False)
PREDICTOR = PredictorSource(Path("/p"), 2, has_prompt=True, checked_against_model=True)
PROMPTS = [Prompt(tuple(range(4 + i % 5)), None) for i in range(12)]


class Silent:
    def phase(self, text: str, total: int) -> None: ...
    def advance(self, done: int) -> None: ...
    def run_done(self) -> None: ...


class Stage:
    """All servers of a benchmark: what was started, switched, reset and asked, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.bodies: dict[str, list[dict[str, Any]]] = {}
        self.fault: Callable[[dict[str, Any]], str] = lambda _body: ""
        self.running = 0
        self.stop_takes_s = 0.0

    def server(
        self, model: ModelSource, predictor: PredictorSource | None, _args: Any, **options: Any
    ) -> Any:
        return StageServer(self, predictor, options["name"], options["logs"])


class StageServer:
    """Stands for one vLLM server (and its sidecar where a predictor is given)."""

    def __init__(self, stage: Stage, predictor: PredictorSource | None, name: str, logs: Path) -> None:
        self.stage, self.trail, self.name = stage, predictor is not None, name
        self.stats_file = logs / f"{name}.json"
        self.started_in_s = 1.0
        self.fake = FakeServer(fault=self._fault, pause_s=0.001)
        self.base_url = ""

    def _fault(self, body: dict[str, Any]) -> str:
        return self.stage.fault(body)  # a test changes the fault while servers run

    @property
    def control(self) -> "StageServer":
        assert self.trail, "stock vLLM has no sidecar to talk to"
        return self

    def set_policy(self, policy: PolicySpec) -> int:
        self.stage.log.append(f"policy {policy.name} {policy.c}")
        return 1

    async def start(self) -> None:
        assert self.stage.running == 0, "one engine at a time"
        self.stage.running += 1
        self.stage.log.append(f"start {self.name}")
        self._server = TestServer(self.fake.app())
        await self._server.start_server()
        self.base_url = f"http://127.0.0.1:{self._server.port}"

    async def stop(self) -> None:
        await asyncio.sleep(self.stage.stop_takes_s)
        self.stage.running -= 1
        self.stage.log.append(f"stop {self.name}")
        self.stage.bodies.setdefault(self.name, []).extend(self.fake.bodies)
        if self.trail:
            row = {
                "output_tokens": 10,
                "initial": 14.0,
                "initial_source": "prompt",
                "refined_mae": 3.0,
                "predictions": 9,
                "finish_reason": "stop",
            }
            rows = [{**row, "request_id": f"cmpl-{i}-0-01234567"} for i in self.fake.request_ids]
            self.stats_file.parent.mkdir(parents=True, exist_ok=True)
            self.stats_file.write_text(json.dumps({"delay_us": {"p50": 1.0}, "requests": rows}))
        await self._server.close()

    async def reset_prefix_cache(self) -> None:
        self.stage.log.append("reset")

    async def counters(self) -> Counters:
        engine = EngineState(True, "", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) if self.trail else None
        return Counters({"vllm:num_preemptions_total": 0.0}, engine)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage()
    monkeypatch.setattr(runner, "Server", made.server)
    return made


def bench(tmp_path: Path, on_run: Callable[[], None] = lambda: None, **changes: Any) -> Benchmark:
    given = {"load": parse_load("200"), "out": tmp_path, "request_timeout_s": 20.0} | changes
    config: BenchConfig = replace(CONFIG, **given)
    return Benchmark(config, MODEL, PREDICTOR, PROMPTS, context_tokens=None, progress=Silent(), on_run=on_run)


async def test_servers_alternate_and_every_trail_run_begins_with_its_policy_and_an_empty_cache(
    tmp_path: Path, stage: Stage
) -> None:
    await bench(tmp_path, arms=parse_arms("fcfs,trail-c0.2,sjf"), repeats=2).run()
    assert stage.log == [
        "start 0-stock", "reset", "stop 0-stock",
        "start 1-trail", "policy trail 0.2", "reset", "policy sjf 0.8", "reset",
        "policy sjf 0.8", "reset", "policy trail 0.2", "reset", "stop 1-trail",
        "start 2-stock", "reset", "stop 2-stock",
    ]  # fmt: skip


async def test_every_arm_of_a_repeat_gets_the_same_requests_and_repeats_differ(
    tmp_path: Path, stage: Stage
) -> None:
    benchmark = bench(tmp_path, arms=parse_arms("fcfs,trail-c0"), repeats=2)
    await benchmark.run()
    results = benchmark.results()
    for repeat in range(2):
        arrivals = [a["runs"][repeat]["requests"]["arrival_s"] for a in results["arms"].values()]
        assert arrivals[0] == arrivals[1]
    runs = results["arms"]["fcfs"]["runs"]
    assert runs[0]["requests"]["arrival_s"] != runs[1]["requests"]["arrival_s"]
    assert results["arms"]["trail-c0"]["outputs"]["share_identical"] == 1.0
    assert results["complete"]


async def test_the_oracle_is_told_the_lengths_that_the_first_run_produced(
    tmp_path: Path, stage: Stage
) -> None:
    await bench(tmp_path, arms=parse_arms("oracle,fcfs"), repeats=1).run()
    told = [b for b in stage.bodies["1-trail"] if "vllm_xargs" in b]
    assert len(told) == 10
    for body in told:
        assert body["vllm_xargs"] == {"trail_output_tokens": 2 * len(body["prompt"])}
    assert not [b for b in stage.bodies["0-stock"] if "vllm_xargs" in b]


async def test_prediction_errors_reach_the_run_they_belong_to(tmp_path: Path, stage: Stage) -> None:
    benchmark = bench(tmp_path, arms=parse_arms("fcfs,trail-c0"), warmup_requests=3)
    await benchmark.run()
    arms = benchmark.results()["arms"]
    assert arms["fcfs"]["prediction"] is None
    assert arms["trail-c0"]["prediction"]["requests"] == 10, "warm-up requests are not counted"
    assert arms["trail-c0"]["prediction"]["initial_mae_tokens"] == 4.0
    assert benchmark.results()["servers"][1]["sidecar"] == {"delay_us": {"p50": 1.0}}


async def test_relative_load_is_relative_to_what_was_measured(tmp_path: Path, stage: Stage) -> None:
    benchmark = bench(tmp_path, arms=parse_arms("fcfs"), load=parse_load("1.3x"), capacity_requests=40)
    await benchmark.run()
    results = benchmark.results()
    assert results["capacity"]["requests"] == 40
    assert results["load"]["rate_per_s"] == pytest.approx(1.3 * results["capacity"]["requests_per_s"])


async def test_answers_are_limited_to_what_the_context_has_room_for(tmp_path: Path, stage: Stage) -> None:
    config = replace(CONFIG, load=parse_load("200"), arms=parse_arms("fcfs"), out=tmp_path, max_tokens=50)
    short = Benchmark(config, MODEL, None, PROMPTS, context_tokens=20, progress=Silent(), on_run=lambda: None)
    await short.run()
    assert {(len(b["prompt"]), b["max_tokens"]) for b in stage.bodies["0-stock"]} <= {
        (n, 20 - n) for n in range(4, 9)
    }


async def test_an_interrupted_benchmark_stops_its_server_and_keeps_complete_runs(
    tmp_path: Path, stage: Stage
) -> None:
    def interrupt_in_the_second_run() -> None:
        stage.fault = lambda _body: "hang"
        for after_s in (0.3, 0.5):  # the second one comes while the server is being stopped
            asyncio.get_running_loop().call_later(after_s, os.kill, os.getpid(), signal.SIGINT)

    stage.stop_takes_s = 0.5
    benchmark = bench(tmp_path, on_run=interrupt_in_the_second_run, arms=parse_arms("fcfs,trail-c0"))
    code, message = await asyncio.wait_for(_until_signal(benchmark), 30)
    assert code == 130
    assert "interrupted" in message
    assert stage.running == 0
    results = benchmark.results()
    assert results["complete"] is False
    assert list(results["arms"]) == ["fcfs"]
    assert any("stopped before its end" in note for note in results["notes"])


async def test_a_server_that_refuses_everything_is_an_error_and_no_result(
    tmp_path: Path, stage: Stage
) -> None:
    stage.fault = lambda _body: "refuse"
    with pytest.raises(ServerError, match=r"no warm-up request succeeded.*HTTP 404"):
        await bench(tmp_path, arms=parse_arms("fcfs"), warmup_requests=2).run()
    assert stage.running == 0
