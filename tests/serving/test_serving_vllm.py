"""`trail serve` and `trail bench` with a real vLLM and the demo model, at the smallest size."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from trail.demo import demo_model_dir
from trail.demo.corpus import demo_prompts
from trail.serving.launch import free_port

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (demo_model_dir() / "config.json").is_file(), reason="the demo model is not here"),
]

START_LIMIT_S = 400
SMALL = ("--max-num-seqs", "4", "--block-size", "32", "--max-model-len", "256")


def call(port: int, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        assert response.status == 200, text
    finally:
        connection.close()
    return json.loads(text) if text else {}


def answer(port: int) -> list[int]:
    prompt = demo_prompts(1, 5)[0]
    body = {
        "model": "demo",
        "prompt": list(prompt.token_ids),
        "max_tokens": 40,
        "temperature": 0,
        "return_token_ids": True,
    }
    return list(call(port, "/v1/completions", body)["choices"][0]["token_ids"])


class Process(NamedTuple):
    pid: int
    parent: int
    group: int


def processes() -> list[Process]:
    """Everything that runs, zombies left out."""
    out = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if fields[0] != "Z":
                out.append(Process(int(entry.name), int(fields[1]), int(fields[2])))
    return out


def sidecar_of(pid: int) -> int:
    children = [p.pid for p in processes() if p.parent == pid]
    return next(c for c in children if b"\0sidecar\0" in Path(f"/proc/{c}/cmdline").read_bytes())


class Served(NamedTuple):
    process: subprocess.Popen[bytes]
    port: int
    log: Path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    port, log = free_port(), tmp_path / "serve.log"
    command = [sys.executable, "-m", "trail", "serve", "demo", "--policy", "trail-c0.8", *SMALL]
    env = {**os.environ, "TRAIL_METRICS_PORT": "-1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=out, stderr=out, env=env
        )
    deadline = time.monotonic() + START_LIMIT_S
    try:
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                call(port, "/health")
                break
            except OSError:
                time.sleep(0.5)
        yield Served(process, port, log)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(90)


def test_serve_answers_survives_its_sidecar_and_leaves_nothing(served: Served) -> None:
    process, port, log = served
    before = answer(port)
    assert len(before) > 0
    assert log.read_text().count("connected: vLLM") == 1, "the engine must have met the sidecar"
    directory = Path(re.findall(r"directory (\S*/trail-\w+)", log.read_text())[0])
    assert directory.is_dir()
    groups = {p.group for p in processes() if p.parent == process.pid}
    assert len(groups) == 2

    os.kill(sidecar_of(process.pid), signal.SIGKILL)
    assert answer(port) == before, "no sidecar: first come, first served, and the same text"
    deadline = time.monotonic() + 120
    while log.read_text().count("connected: vLLM") < 2:
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)
    assert answer(port) == before

    groups |= {p.group for p in processes() if p.parent == process.pid}
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 0
    assert [p for p in processes() if p.group in groups] == []
    assert not directory.exists()


def test_bench_runs_every_kind_of_arm_and_writes_what_it_promises(tmp_path: Path) -> None:
    arms = "fcfs,sjf,trail-prompt,trail-c0.2,oracle"
    command = [sys.executable, "-m", "trail", "bench", "demo", "--arms", arms, "--requests", "24"]
    command += ["--repeats", "1", "--capacity-requests", "24", "--warmup-requests", "4", "--max-tokens", "60"]
    command += ["--start-timeout", str(START_LIMIT_S), "--out", str(tmp_path), *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["complete"]
    assert list(results["arms"]) == arms.split(",")
    for name, arm in results["arms"].items():
        assert arm["outcomes"]["completed"] == 24, arm["outcomes"]["reasons"]
        for quantity in ("latency_s", "ttft_s"):
            assert all(arm[quantity][s] > 0 for s in ("mean", "p50", "p95", "p99"))
        if name != "fcfs":
            assert arm["outputs"]["identical"] == 24, "the order changes, the tokens never do"
            assert arm["engine"]["steps"] > 0
            assert arm["prediction"]["requests"] == 24
    assert results["capacity"]["requests_per_s"] > 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 5
    assert "fcfs" in done.stdout
