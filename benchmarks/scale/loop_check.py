"""`python -m benchmarks.scale.loop_check`: the loop on c at size, and what it survives (build/loop.json).

Real Redis, two real operators with a lease, 200 simulated pods of 50 workloads in two processes whose clocks
are 30 s fast and 30 s slow; and workloads of simulated engines over a load step.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loop_kit import RedisServer, until

from benchmarks.control.regret import turns
from benchmarks.control.settings import Setting
from benchmarks.scale.engine_pods import load_step
from trail.wire.files import write_json
from trail.wire.redis_schema import Keys

HERE = "benchmarks.scale"
INTERVAL_S = 1.0
SETTLE_S = 30.0
"""What the controller's smoothing needs to forget the load before a step, about."""
STEADY_S = 20.0
OUTAGE_S = 6.0
TARGET = 0.05
CLOCKS = {"fast": 30.0, "slow": -30.0}
"""Processes of pods, and the seconds by which their wall clocks are wrong."""


class Operator:
    """An operator process and what it has printed."""

    def __init__(
        self, name: str, url: str, lease: Path, workloads: list[str], skew_s: float, log: Path
    ) -> None:
        self.name, self._log = name, log
        with log.open("w") as out, log.with_suffix(".err").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{HERE}.operator_process", "--url", url, "--name", name,
                 "--lease", str(lease), "--interval", str(INTERVAL_S),
                 "--skew", str(skew_s), "--workloads", *workloads],
                stdout=out,
                stderr=errors,
            )  # fmt: skip

    def lines(self) -> list[dict[str, Any]]:
        text = self._log.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def standing(self) -> dict[str, Any]:
        return next((line for line in reversed(self.lines()) if "leader" in line), {})

    def changes(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if "workload" in line]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def seconds(condition: Callable[[], Any], limit_s: float = 120.0) -> float:
    """How long it took until `condition` came true."""
    began_s = time.monotonic()
    until(condition, limit_s)
    return time.monotonic() - began_s


class Check:
    """The story, stage by stage."""

    def __init__(self, directory: Path, pods: int, workloads: int) -> None:
        self.directory, self.count = directory, pods
        (directory / "redis").mkdir()
        self.server = RedisServer(directory / "redis")
        self.workloads = [f"team-{i % 5}/deployment/llm-{i}" for i in range(workloads)]
        each = pods // workloads // 2
        self.pods = [self._process(name, skew, each) for name, skew in CLOCKS.items()]
        for process in self.pods:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        self.operators = [self.operator("one", 30.0), self.operator("two", -30.0)]
        self.found: dict[str, Any] = {"pods": pods, "workloads": workloads, "interval_s": INTERVAL_S}

    def _process(self, kind: str, skew_s: float, each: int) -> "subprocess.Popen[str]":
        """A process of pods, `each` of every workload; one of the processes has a pod more that lies."""
        liar = ["--liar", self.workloads[0]] if kind == "fast" else []
        command = [
            *(
                sys.executable,
                "-m",
                f"{HERE}.pods_process",
                "--url",
                self.server.url,
                "--pods",
                str(each),
            ),
            *("--skew", str(skew_s), "--kind", kind, "--interval", str(INTERVAL_S)),
            *("--log", str(self.directory / f"{kind}.json"), *liar, "--workloads", *self.workloads),
        ]
        with (self.directory / f"{kind}.err").open("w") as errors:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)

    def operator(self, name: str, skew_s: float) -> Operator:
        log = self.directory / f"operator-{name}-{time.monotonic_ns()}.jsonl"
        return Operator(name, self.server.url, self.directory / "lease.json", self.workloads, skew_s, log)

    def leader(self) -> Operator | None:
        alive = [o for o in self.operators if o.process.poll() is None]
        return next((o for o in alive if o.standing().get("leader")), None)

    def everywhere(self, c: float) -> bool:
        """Whether every pod says that it applies `c`."""
        client = self.server.client()
        said = 0
        for workload in self.workloads:
            keys = Keys(workload)
            names = [
                name.decode() for name in client.zrange(keys.pods, 0, -1) if name not in (b"liar", b"rubbish")
            ]
            said += sum(float(client.hget(keys.pod(name), "c") or -1) == c for name in names)
        return said == self.count

    def step(self) -> None:
        for process in self.pods:
            process.send_signal(signal.SIGUSR1)

    def run(self) -> dict[str, Any]:
        found = self.found
        found["settled_s"] = seconds(lambda: self.everywhere(1.0))
        found["steady"] = self.steady()
        self.step()
        found["followed_load_step_s"] = seconds(lambda: self.everywhere(0.0))
        found["redis_killed"] = self.redis_killed()
        found["operator_killed"] = self.operator_killed()
        found["steady_at_the_end"] = self.steady()
        found["leaders_at_once"] = self.leaders_at_once()
        self.end()
        return found

    def steady(self) -> dict[str, Any]:
        """Constant load: nothing moves; what the operator costs meanwhile."""
        time.sleep(SETTLE_S)
        leader = until(self.leader)
        before, changes = leader.standing(), len(leader.changes())
        time.sleep(STEADY_S - 2 * INTERVAL_S)
        client, keys = self.server.client(), Keys(self.workloads[1])
        client.hset(keys.pod("rubbish"), mapping={"version": "1", "waiting": "lots"})
        client.zadd(keys.pods, {"rubbish": 1000 * int(client.time()[0])})
        until(lambda: leader.standing()["rejected"])
        after = leader.standing()
        passed_s = after["at_s"] - before["at_s"]
        return {
            "seconds": passed_s,
            "changes": len(leader.changes()) - changes,
            "operator_cpu_share": (after["cpu_s"] - before["cpu_s"]) / passed_s,
            "operator_rss_mib": after["rss_mib"],
            "following": after["following"],
            "rejected": after["rejected"],
        }

    def redis_killed(self) -> dict[str, Any]:
        leader = until(self.leader)
        began_s = time.monotonic()
        self.server.kill()
        degraded_s = seconds(lambda: leader.standing().get("degraded"))
        time.sleep(OUTAGE_S)
        self.server.start()
        healed_s = seconds(lambda: self.everywhere(0.0))
        until(lambda: not leader.standing().get("degraded"))
        return {
            "degraded_after_s": degraded_s,
            "healed_after_s": healed_s,
            "from_s": began_s,
            "to_s": time.monotonic(),
        }

    def operator_killed(self) -> dict[str, Any]:
        first = until(self.leader)
        began_s = time.monotonic()
        first.kill()
        taken_s = seconds(self.leader)
        second = until(self.leader)
        unchanged_to_s = time.monotonic()
        self.step()
        followed_s = seconds(lambda: self.everywhere(1.0))
        self.operators.append(self.operator(first.name, 0.0))
        time.sleep(8.0)
        return {
            "taken_over_after_s": taken_s,
            "followed_load_step_s": followed_s,
            "restarted_one_leads": bool(self.operators[-1].standing().get("leader")),
            "still_leads": bool(second.standing().get("leader")),
            "from_s": began_s,
            "to_s": unchanged_to_s,
        }

    def leaders_at_once(self) -> int:
        """The most operators that have said they lead within one second."""
        seen: dict[int, set[int]] = {}
        for number, operator in enumerate(self.operators):
            for line in operator.lines():
                if line.get("leader"):
                    seen.setdefault(int(line["at_s"]), set()).add(number)
        return max(len(who) for who in seen.values())

    def stop(self) -> None:
        """Leaves no process behind."""
        for operator in self.operators:
            operator.kill()
        for process in self.pods:
            process.kill()
            process.wait()
        self.server.kill()

    def end(self) -> None:
        """What the pods were told, beside what should have come of it."""
        for process in self.pods:
            process.terminate()
            process.wait(30)
        logs = [json.loads((self.directory / f"{kind}.json").read_text()) for kind in CLOCKS]
        told = [log for pods in logs for log in pods]
        quiet = {name: (self.found[name].pop("from_s"), self.found[name].pop("to_s")) for name in
                 ("redis_killed", "operator_killed")}  # fmt: skip
        for name, (low_s, high_s) in quiet.items():
            self.found[name]["c_changed_meanwhile"] = sum(
                low_s < at_s < high_s for log in told for at_s, *_ in log
            )
        generations = [[generation for *_, generation in log] for log in told]
        self.found["generations_ascend"] = all(g == sorted(set(g)) for g in generations)
        self.found["most_turns"] = max(turns([c for _, c, _ in log]) for log in told)


def engines(directory: Path, requests: int) -> list[dict[str, Any]]:
    """Load steps of simulated engines, recomputation expensive and cheap."""
    (directory / "engines").mkdir()
    server = RedisServer(directory / "engines")
    try:
        return [
            load_step(server.url, setting, pods=4, requests=requests)
            for setting in (
                Setting("step up", "expensive", False, 1000),
                Setting("step up", "expensive", True, 1000),
                Setting("step down", "cheap", False, 150),
            )
        ]
    finally:
        server.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/loop.json"))
    parser.add_argument("--pods", type=int, default=200)
    parser.add_argument("--workloads", type=int, default=50)
    parser.add_argument("--requests", type=int, default=1500, help="of each simulated engine")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as directory:
        check = Check(Path(directory), args.pods, args.workloads)
        try:
            document = check.run()
        finally:
            check.stop()
        document["engines"] = engines(Path(directory), args.requests)
    passed = {
        "nothing moves under constant load": document["steady"]["changes"] == 0
        and document["steady_at_the_end"]["changes"] == 0,
        "all pods follow": document["steady"]["following"] >= args.pods,
        "rubbish is named": "rubbish" in document["steady"]["rejected"],
        "c stays while Redis is away": document["redis_killed"]["c_changed_meanwhile"] == 0,
        "c stays while no operator acts": document["operator_killed"]["c_changed_meanwhile"] == 0,
        "only one acts": document["leaders_at_once"] == 1,
        "the one restarted does not take over": not document["operator_killed"]["restarted_one_leads"],
        "generations ascend": document["generations_ascend"],
        "engines within 5 % of the best constant c": all(e["regret"] <= TARGET for e in document["engines"]),
    }
    document["passed"] = passed
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, document)
    print(json.dumps(document, indent=1))
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
