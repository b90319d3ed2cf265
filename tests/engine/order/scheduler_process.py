"""Starts `scheduler_run.py` and speaks with it; a round of requests that makes the order matter."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
LENGTHS = (5, 10, 20, 40, 80, 150)
START_LIMIT_S = 300.0


def requests(count: int = 64, every: int = 6, seed: int = 0) -> list[dict[str, Any]]:
    """`count` requests of very different lengths; one is sent each time `every` outputs have come."""
    rng = random.Random(seed)
    return [
        {
            "tokens": rng.choice(LENGTHS),
            "prompt": [rng.randrange(2, 256) for _ in range(rng.randrange(4, 60))],
            "after": number * every,
        }
        for number in range(count)
    ]


class EngineProcess:
    """One vLLM engine in a process of its own. `lines` holds what it and its engine core logged."""

    def __init__(
        self, model: Path, directory: Path, work: Path, *, trail: bool = True, **engine: Any
    ) -> None:
        arguments = {
            "model": str(model),
            "dtype": "float32",
            "skip_tokenizer_init": True,
            "block_size": 32,
            "max_model_len": 512,
            "enforce_eager": True,
            "disable_log_stats": False,
            **engine,
        }
        if trail:
            arguments["scheduler_cls"] = "trail.engine.order.scheduler.TrailScheduler"
        path = work / "arguments.json"
        path.write_text(json.dumps(arguments))
        environment = {
            **os.environ,
            "TRAIL_ENABLED": "1" if trail else "0",
            "TRAIL_DIR": str(directory),
            "VLLM_PLUGINS": "",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT / "sidecar"),
        }
        self.lines: list[str] = []
        self._replies: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("scheduler_run.py")), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._reply(START_LIMIT_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                (self._replies if line.startswith("@") else self.lines).append(line)
                self._changed.notify_all()
        with self._changed:
            self._replies.append("")
            self._changed.notify_all()

    def _reply(self, limit_s: float) -> str:
        with self._changed:
            assert self._changed.wait_for(lambda: self._replies, limit_s), "".join(self.lines[-40:])
            line = self._replies.pop(0)
        assert line, "the engine ended:\n" + "".join(self.lines[-40:])
        return line[1:]

    def send(self, round_of: list[dict[str, Any]]) -> None:
        """Begin a round."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"requests": round_of}) + "\n")
        self._process.stdin.flush()

    def result(self, limit_s: float = 300.0) -> dict[str, Any]:
        """The result of the round begun."""
        reply: dict[str, Any] = json.loads(self._reply(limit_s))
        return reply

    def serve(self, round_of: list[dict[str, Any]]) -> dict[str, Any]:
        """A round from beginning to end."""
        self.send(round_of)
        return self.result()

    def has_logged(self, text: str, since: int = 0, limit_s: float = 90.0) -> bool:
        """Whether a line with `text` came after line number `since`, or comes within `limit_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: any(text in line for line in self.lines[since:]), limit_s)

    def close(self) -> None:
        """End the engine by closing its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_until(condition: Any, limit_s: float = 90.0) -> bool:
    """Whether `condition()` came true within `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
