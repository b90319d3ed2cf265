"""Starts vLLM with the export on and compares what came out of the ring with Hugging Face's hidden states."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import models
import numpy as np
import torch

from trail.wire.frames import Kind

SCRIPT = Path(__file__).with_name("export_run.py")
PACKAGE = Path(__file__).parents[3] / "sidecar"
TOLERANCE = 1e-5
BESIDE = 0.05
"""A layer beside the exported one differs by at least this somewhere in every run."""


@dataclass(frozen=True)
class Job:
    """Requests for one engine. `waves` are sizes of groups sent after the group before has ended."""

    model: Path
    prompts: Sequence[Sequence[int]]
    max_tokens: Sequence[int]
    layers: tuple[int, ...] = (2,)
    export_every: int = 1
    engines: int = 1
    engine: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    waves: Sequence[int] = ()
    sampling: Sequence[Mapping[str, Any]] = ()
    adapters: Sequence[Path | None] = ()


@dataclass(frozen=True)
class Run:
    """What an engine exported and generated; `log` is all it wrote."""

    job: Job
    rows: np.ndarray
    vectors: np.ndarray
    keys: np.ndarray
    outputs: list[list[int]]
    preemptions: int
    rows_per_engine: list[int]
    log: str


@dataclass(frozen=True)
class Comparison:
    """Largest difference to `hidden_states[layer]` and what was covered; `missing`: (request, position)."""

    difference: float
    token_rows: int
    mean_prompts: int
    last_prompts: int
    missing: list[tuple[int, int]]


def run(job: Job, directory: Path, timeout_s: float = 420.0) -> Run:
    """Run `job` in an engine of its own; fails with the engine's log when it does not end well."""
    directory.mkdir(parents=True, exist_ok=True)
    spec, out, shared = directory / "spec.json", directory / "out.npz", directory / "shared"
    shared.mkdir()
    spec.write_text(
        json.dumps(
            {
                "model": str(job.model),
                "directory": str(shared),
                "hidden_size": models.HIDDEN,
                "prompts": [list(p) for p in job.prompts],
                "max_tokens": list(job.max_tokens),
                "engines": job.engines,
                "engine": dict(job.engine),
                "waves": list(job.waves),
                "sampling": [dict(s) for s in job.sampling],
                "adapters": [str(a) if a else None for a in job.adapters],
            }
        )
    )
    environ = {
        **os.environ,
        "TRAIL_ENABLED": "1",
        "TRAIL_DIR": str(shared),
        "TRAIL_LAYERS": ",".join(map(str, job.layers)),
        "TRAIL_EXPORT_EVERY": str(job.export_every),
        "TRAIL_HEARTBEAT_MS": "20000",
        "VLLM_DISABLE_REQUEST_ID_RANDOMIZATION": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")]),
        **job.environ,
    }
    log_file = directory / "log.txt"
    with (
        log_file.open("w") as log,
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(spec), str(out)],
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as engine,
    ):
        try:
            status = engine.wait(timeout_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(engine.pid, signal.SIGKILL)  # workers outlive a parent that was stopped
    log_text = log_file.read_text(errors="replace")
    assert status == 0, log_text[-6000:]
    data = np.load(out)
    assert int(data["lost"]) == int(data["torn"]) == int(data["rejected"]) == 0
    return Run(
        job=job,
        rows=data["rows"],
        vectors=data["vectors"],
        keys=data["keys"],
        outputs=json.loads(str(data["outputs"])),
        preemptions=int(data["preemptions"]),
        rows_per_engine=[int(n) for n in data["per_engine"]],
        log=log_text,
    )


def compare(result: Run, layer: int, *, against: int | None = None) -> Comparison:
    """The rows of `layer` against Hugging Face's `hidden_states[against]`, `layer` unless given."""
    job, other = result.job, layer if against is None else against
    chosen = result.rows["layer"] == layer
    rows, vectors = result.rows[chosen], result.vectors[chosen]
    worst, kinds, missing = 0.0, {"token": 0, "mean": 0, "last": 0}, []
    for i, (prompt, output) in enumerate(zip(job.prompts, result.outputs, strict=True)):
        adapter = job.adapters[i] if job.adapters else None
        sequence = [*prompt, *output]
        truth = models.hidden_states(job.model, sequence, adapter)[other].numpy()
        seen = set()
        own = rows["key"] == result.keys[i]
        for row, vector in zip(rows[own], vectors[own], strict=True):
            position, pooled = int(row["position"]), int(row["pooled"])
            seen.add(position)
            if row["kind"] == Kind.PROMPT:
                assert position == len(prompt)
                assert pooled in (1, len(prompt))
                kinds["mean" if pooled == len(prompt) else "last"] += 1
            else:
                assert position > len(prompt)
                kinds["token"] += 1
            expected = truth[position - pooled : position].mean(0)
            worst = max(worst, float(np.abs(vector - expected).max()))
        # The last token is never fed back.
        due = [0, *(age for age in range(1, len(output)) if age % job.export_every == 0)]
        missing += [(i, len(prompt) + age) for age in due if len(prompt) + age not in seen]
    return Comparison(worst, kinds["token"], kinds["mean"], kinds["last"], missing)


def check_export(result: Run, layer: int) -> Comparison:
    """Every position of every request is there and is that of `layer`; the layers beside are not."""
    found = compare(result, layer)
    assert found.difference <= TOLERANCE
    assert found.missing == []
    for beside in (layer - 1, layer + 1):
        assert compare(result, layer, against=beside).difference > BESIDE
    return found


def random_prompts(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Prompts of ordinary tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, models.VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
