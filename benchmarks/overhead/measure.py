"""Interleaved runs of stock vLLM and TRAIL on the same saturated work, summed up in `overhead.json`."""

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import Progress

from benchmarks.overhead import dummy
from trail.predict.manifest import read_manifest
from trail.report.stats import mean_interval
from trail.serving.launch import TrailSetup, shared_directory
from trail.serving.offline import OfflineEngine
from trail.serving.stack import Stack
from trail.wire.files import write_json
from trail.wire.names import ENV_STATS

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


def cpu_s(pid: int, *, below: bool = False) -> float:
    """CPU seconds spent so far by a process and its descendants; `below`: by its descendants alone."""
    root, total = psutil.Process(pid), 0.0
    for process in [*([] if below else [root]), *root.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def run_engine(subject: Subject, env: Mapping[str, str], log: Path) -> dict[str, float]:
    """One run of an engine of its own: warm up, then exactly `output_tokens` for each of `requests` prompts.

    Every request has the same length in both arms, so the order of requests cannot change the work. Raises
    EngineError.
    """
    args = [
        "--model", str(subject.model), "--load-format", subject.load_format, "--dtype", "float32",
        "--max-model-len", str(subject.prompt_tokens + subject.output_tokens + 1),
        "--max-num-seqs", str(subject.max_num_seqs), "--max-num-batched-tokens", "16384",
        "--block-size", "32", "--skip-tokenizer-init",
    ]  # fmt: skip

    with (
        shared_directory() as directory,
        OfflineEngine(args, env, directory, log, whole_prompts=True) as engine,
    ):

        def generate(n: int, seed: int, tokens: int) -> int:
            sampling = {"temperature": 0.0, "max_tokens": tokens, "ignore_eos": True}
            length, vocabulary = subject.prompt_tokens, subject.vocabulary
            requests = [
                {
                    "id": 1_000_000 * seed + i,
                    "prompt": [(seed + 7 * i + j) % vocabulary for j in range(length)],
                    "sampling": sampling,
                }
                for i in range(n)
            ]
            return sum(len(answers.tokens[0]) for answers in engine.run(requests, RUN_LIMIT_S))

        engine.wait_ready()
        # The first requests also meet a sidecar that has just attached.
        generate(2 * subject.max_num_seqs, 1, 16)
        # Of engine core and worker, not of the process that feeds them.
        cpu_before, began_s = cpu_s(engine.pid, below=True), time.monotonic()
        tokens = generate(subject.requests, 2, subject.output_tokens)
        wall_s = time.monotonic() - began_s
        spent_s = cpu_s(engine.pid, below=True) - cpu_before
        if env.get(ENV_STATS) == "1":
            # Statistics files are written every five seconds; let the last window reach the disk.
            time.sleep(5.5)
            generate(2, 3, 2)
    return {"tokens": tokens, "wall_s": wall_s, "engine_cpu_s": spent_s, "slots": subject.max_num_seqs}


def run_arm(arm: str, subject: Subject, directory: Path, name: str) -> dict[str, Any]:
    """One repeat of one arm; under TRAIL with a sidecar of its own, started before and stopped after."""
    stats_file = directory / f"{name}.sidecar.json"
    trail = None
    if arm != "stock":
        layer = read_manifest(subject.predictor).layer
        trail = TrailSetup(subject.predictor, layer, POLICY, stats_file=stats_file, metrics_port=-1)
    parts: dict[str, Any] = {}
    with Stack(None, (), trail, log=directory / name) as stack:
        stack.until_ready(SIDECAR_START_S)
        env = stack.env if trail is None else {**stack.env, ENV_STATS: "1"}
        run = run_engine(subject, env, directory / f"{name}-vllm.log")
        if trail is not None:
            parts = {
                part: json.loads((stack.directory / f"{part}-0.json").read_text())
                for part in ("schedule", "export")
            }
    if trail is not None:
        parts["sidecar"] = json.loads(stats_file.read_text())
    return {"run": run, **parts}


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
