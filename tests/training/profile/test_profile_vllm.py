"""`trail profile` with a real vLLM and the demo model, at the smallest size."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.demo_model.sampling import Sample, hidden_states
from trail.demo import demo_model_dir
from trail.demo.tokenizer import EOS_ID
from trail.training.recording import Recording, RecordingError

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (demo_model_dir() / "config.json").is_file(), reason="the demo model is not here"),
]

LIMIT_S = 400
TOLERANCE = 1e-5
"""Of a vector's largest value."""
LAYERS = (0, 1, 2, 3)
MAX_TOKENS = 120
# Layer 0 is the embedding, which tells the generated tokens: a recording holds none.
WORDS = (
    "--prompts", "demo", "--limit", "12", "--samples", "2", "--layers", "0,1,2,3", "--shard-requests", "4",
    "--max-tokens", str(MAX_TOKENS), "--max-num-seqs", "3", "--block-size", "32",
)  # fmt: skip


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `trail profile demo`; what a failed test leaves running is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(out: Path, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "trail", "profile", "demo", "--out", str(out), *WORDS, *more]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(run)
        return run

    yield start
    for run in started:
        if run.poll() is None:
            run.terminate()
            run.communicate(timeout=60)


def processes_of(groups: set[int]) -> list[int]:
    """What runs in these process groups, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _parent, group = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            except OSError:
                continue
            if state != "Z" and int(group) in groups:
                found.append(int(entry.name))
    return found


def child_groups(pid: int) -> set[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {os.getpgid(int(child)) for child in children} - {os.getpgid(pid)}


def shared_memory_of(groups: set[int]) -> set[Path]:
    """Files on shared memory that processes of these groups have mapped."""
    found = set()
    for pid in processes_of(groups):
        with contextlib.suppress(OSError):
            found |= set(re.findall(r"/dev/shm/\S+", Path(f"/proc/{pid}/maps").read_text()))
    return {Path(name) for name in found}


def wait_until_gone(groups: set[int], memory: set[Path], limit_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while left := processes_of(groups):
        assert time.monotonic() < deadline_s, f"processes {left} outlive the run"
        time.sleep(0.2)
    assert [path for path in memory if path.exists()] == []


def test_a_killed_run_goes_on_and_its_vectors_are_hugging_faces(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "r"
    killed = start(out)
    deadline_s = time.monotonic() + LIMIT_S
    while not (out / "shard-00000").is_dir():
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    groups = child_groups(killed.pid)
    memory = shared_memory_of(groups)
    killed.kill()
    killed.communicate()
    assert len(groups) == 1
    assert any(path.suffix == ".ring" for path in memory)
    wait_until_gone(groups, memory)
    shared = Path(re.findall(r"to (\S+)/frames-0\.ring", (out / "vllm.log").read_text())[0])
    assert not shared.exists()
    kept = {p.name: p.stat().st_mtime_ns for p in out.glob("shard-*")}
    assert 0 < len(kept) < 6
    with pytest.raises(RecordingError, match="is incomplete"):
        Recording.open(out)

    again = start(out)
    said, complaints = again.communicate(timeout=LIMIT_S)
    assert again.returncode == 0, complaints
    assert f"in 6 shards; {len(kept)} are there already" in said
    assert kept.items() <= {p.name: p.stat().st_mtime_ns for p in out.glob("shard-*")}.items()
    check_against_hugging_face(Recording.open(out))


def check_against_hugging_face(recording: Recording) -> None:
    model = AutoModelForCausalLM.from_pretrained(demo_model_dir(), dtype=torch.float32).eval()
    embedding = model.get_input_embeddings().weight.detach().numpy()
    requests = recording.requests
    assert len(requests) == 24
    embedded = recording.sequences(0)
    samples = []
    for i in range(24):
        rows = embedded.vectors[embedded.offsets[i] + 1 : embedded.offsets[i + 1]]
        tokens = np.abs(rows[:, None] - embedding).max(axis=2).argmin(axis=1)
        assert np.array_equal(embedding[tokens], rows)
        assert EOS_ID not in tokens, "the token that ends an answer is its last"
        # The last token is never fed in, so that it is not known; no row depends on it.
        output = (*tokens.tolist(), EOS_ID)
        assert len(output) == requests.output_tokens[i]
        samples.append(Sample(recording.prompts[requests.prompt_index[i]], output, ended=True))
    expected = hidden_states(model, samples, LAYERS)
    for layer in LAYERS:
        found = recording.sequences(layer)
        assert np.array_equal(found.offsets, expected[layer].offsets)
        scale = np.abs(expected[layer].vectors).max(axis=1, keepdims=True)
        assert (np.abs(found.vectors[:] - expected[layer].vectors) / scale).max() <= TOLERANCE
    assert np.abs(recording.sequences(2).vectors[:] - expected[3].vectors).max() > 0.05
    # Cut where the limit was reached; the others ended by themselves.
    assert np.array_equal(requests.censored, requests.output_tokens == MAX_TOKENS)
    assert 0 < requests.censored.sum() < 24
    assert len({sample.output for sample in samples}) > 12, "samples of a prompt are drawn independently"


def test_a_run_that_is_stopped_while_vllm_starts_leaves_nothing(start: Start, tmp_path: Path) -> None:
    run = start(tmp_path / "r")
    deadline_s = time.monotonic() + LIMIT_S
    log = tmp_path / "r" / "vllm.log"
    # In the middle of it: the worker has loaded the model, and compiles.
    while not (log.is_file() and "TRAIL: layers" in log.read_text()):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    groups = child_groups(run.pid)
    memory = shared_memory_of(groups)
    run.send_signal(signal.SIGINT)
    _, complaints = run.communicate(timeout=60)
    assert run.returncode == 130, complaints
    assert complaints == "trail profile: interrupted\n"
    assert memory
    wait_until_gone(groups, memory, 5.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--no-such-argument",), "vLLM does not take these arguments: unrecognized arguments: --no-such"),
        (("--pipeline-parallel-size", "2"), "TRAIL is off, vLLM runs as it would without it: pipeline"),
    ],
)
def test_what_vllm_cannot_record_is_said_before_it_loads(
    start: Start, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    run = start(tmp_path / "r", *words)
    _, complaints = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 1
    assert message in complaints
    assert len(complaints.strip().splitlines()) == 1
