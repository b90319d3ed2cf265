"""Interleaved runs of stock vLLM and TRAIL on the same saturated work, summed up in `overhead.json`."""

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.overhead import dummy
from trail.predict.manifest import read_manifest
from trail.report.stats import mean_interval
from trail.serving.launch import (
    Child,
    TrailSetup,
    make_shared_directory,
    remove_shared_directory,
    sidecar_command,
    with_trail,
)
from trail.serving.setup import serving_environment
from trail.wire.files import write_json
from trail.wire.names import ENV_STATS, socket_path

ARMS = ("stock", "trail")
POLICY = "trail-c0.8"
SIDECAR_START_S = 30.0
RUN_LIMIT_S = 600.0


@dataclass(frozen=True)
class Subject:
    """A model and the saturated work it is given."""

    name: str
    model: Path
    predictor: Path
    load_format: str
    vocabulary: int
    requests: int
    prompt_tokens: int = 32
    output_tokens: int = 96
    max_num_seqs: int = 16

    def settings(self) -> dict[str, Any]:
        """What the engine process is told, as JSON."""
        return {**asdict(self), "model": str(self.model), "predictor": str(self.predictor)}


def run_engine(subject: Subject, env: Mapping[str, str], log: Path) -> dict[str, float]:
    """One engine run in its own process. Raises RuntimeError with the log's path when it fails."""
    command = [sys.executable, "-m", "benchmarks.overhead.engine_run", json.dumps(subject.settings())]
    with log.open("w") as err:
        done = subprocess.run(
            command,
            env=dict(env),
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            timeout=RUN_LIMIT_S,
            check=False,
        )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            found: dict[str, float] = json.loads(line.removeprefix("RESULT "))
            return found
    raise RuntimeError(f"the engine run ended with {done.returncode} and no result; see {log}")


def run_arm(arm: str, subject: Subject, directory: Path, name: str) -> dict[str, Any]:
    """One repeat of one arm; under TRAIL with a sidecar of its own, started before and stopped after."""
    env = serving_environment(os.environ, local_model=True, cpus=os.cpu_count())
    # Several processes on few cores: vLLM's in-process mode would hide the driver in the engine's CPU time.
    log = directory / f"{name}.log"
    if arm == "stock":
        return {"run": run_engine(subject, env, log)}
    shared = make_shared_directory()
    stats_file = directory / f"{name}.sidecar.json"
    manifest = read_manifest(subject.predictor)
    setup = TrailSetup(
        directory=shared,
        predictor=subject.predictor,
        layer=manifest.layer,
        policy=POLICY,
        stats_file=stats_file,
        metrics_port=-1,
    )
    sidecar = Child("sidecar", sidecar_command(setup), env, directory / f"{name}.sidecar.log")
    try:
        wait_for(socket_path(shared), sidecar)
        run = run_engine(subject, {**with_trail(env, setup), ENV_STATS: "1"}, log)
        parts = {part: json.loads((shared / f"{part}-0.json").read_text()) for part in ("schedule", "export")}
    finally:
        sidecar.stop(10.0)
        remove_shared_directory(shared)
    return {"run": run, **parts, "sidecar": json.loads(stats_file.read_text())}


def wait_for(socket: Path, sidecar: Child) -> None:
    """Return when the sidecar's predictor is loaded. Raises RuntimeError when it ends or takes too long."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=SIDECAR_START_S)
            stub = health_pb2_grpc.HealthStub(channel)
            for response in stub.Watch(health_pb2.HealthCheckRequest(), timeout=SIDECAR_START_S):
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except (grpc.FutureTimeoutError, grpc.RpcError) as error:
            raise RuntimeError(f"the sidecar is not ready: {error}\n{sidecar.log_tail()}") from error


def summarise(repeats: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Figures of one model from its repeats, each `{arm: result of run_arm}`.

    Ratios are taken within a repeat, so that drift of the machine over minutes cancels.
    """

    def tokens_per_s(run: Mapping[str, float]) -> float:
        return run["tokens"] / run["wall_s"]

    def cpu_us_per_token(run: Mapping[str, float]) -> float:
        return 1e6 * run["engine_cpu_s"] / run["tokens"]

    throughput = [tokens_per_s(r["trail"]["run"]) / tokens_per_s(r["stock"]["run"]) for r in repeats]
    cpu = [cpu_us_per_token(r["trail"]["run"]) / cpu_us_per_token(r["stock"]["run"]) for r in repeats]
    out: dict[str, Any] = {
        "throughput_ratio": with_interval(throughput),
        "cpu_per_token_ratio": with_interval(cpu),
    }
    for arm in ARMS:
        runs = [r[arm]["run"] for r in repeats]
        out[arm] = {
            "tokens_per_s": [tokens_per_s(run) for run in runs],
            "engine_cpu_us_per_token": [cpu_us_per_token(run) for run in runs],
            # A saturated step generates a token in every slot.
            "step_ms": [1e3 * run["slots"] / tokens_per_s(run) for run in runs],
        }
    last = repeats[-1]["trail"]
    out["schedule_us"] = last["schedule"]["schedule_us"]
    out["export_us"] = last["export"]["export_us"]
    out["delay_us"] = last["sidecar"]["delay_us"]
    out["delay_steps"] = last["sidecar"]["delay_steps"]
    out["counters"] = {"schedule": last["schedule"]["counters"], "export": last["export"]["counters"]}
    return out


def with_interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean of the repeats with its 95 % interval, and the repeats themselves."""
    interval = mean_interval(values)
    return {"mean": interval.value, "low": interval.low, "high": interval.high, "repeats": list(values)}


def subjects(work: Path) -> list[Subject]:
    """The dummy model, whose steps are long enough to be typical, and the demo model, whose steps are not."""
    from trail.demo import demo_model_dir, demo_predictor_dir
    from trail.demo.tokenizer import token_ids

    model = dummy.write_model(work / "dummy-model")
    predictor = dummy.write_predictor(work / "dummy-predictor", model)
    return [
        Subject("dummy", model, predictor, "dummy", dummy.VOCABULARY, requests=48, output_tokens=64),
        Subject("demo", demo_model_dir(), demo_predictor_dir(), "auto", len(token_ids()), requests=480),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything and write `<out>/overhead.json`."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.overhead", description="What TRAIL costs the engine: interleaved saturated runs."
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="directory (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (%(default)s)")
    parser.add_argument("--models", default="dummy,demo", help="dummy, demo, or both (%(default)s)")
    args = parser.parse_args(argv)
    wanted = args.models.split(",")
    if not set(wanted) <= {"dummy", "demo"}:
        parser.error(f"--models {args.models}: choose from dummy and demo")
    if args.repeats < 2:
        parser.error("--repeats must be at least 2, an interval needs them")
    work = args.out / "overhead"
    work.mkdir(parents=True, exist_ok=True)
    models = [subject for subject in subjects(work) if subject.name in wanted]
    found: dict[str, list[dict[str, Any]]] = {subject.name: [] for subject in models}
    results: dict[str, Any] = {}
    console = Console(stderr=True)
    with Progress(console=console) as progress:
        task = progress.add_task("runs", total=len(models) * args.repeats * len(ARMS))
        for repeat, subject in itertools.product(range(args.repeats), models):
            arms: dict[str, Any] = {}
            for arm in ARMS if repeat % 2 == 0 else ARMS[::-1]:
                title = f"{subject.name} {repeat + 1}/{args.repeats} {arm}"
                progress.update(task, description=title)
                if not console.is_terminal:
                    console.print(title, highlight=False)
                arms[arm] = run_arm(arm, subject, work, f"{subject.name}-{repeat}-{arm}")
                progress.advance(task)
            found[subject.name].append(arms)
            results[subject.name] = {"work": subject.settings(), **summarise(found[subject.name])}
            # After every repeat, so that a run cut short leaves what it found.
            first = next(iter(results))
            write_json(args.out / "overhead.json", {**results[first], "model": first, "models": results})
    for name, result in results.items():
        ratio, cpu = result["throughput_ratio"], result["cpu_per_token_ratio"]
        console.print(
            f"{name}: throughput x{ratio['mean']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}],"
            f" engine CPU per token x{cpu['mean']:.3f} [{cpu['low']:.3f}, {cpu['high']:.3f}]"
        )
    console.print(f"written: {args.out / 'overhead.json'}")
    return 0
