"""Answers drawn with vLLM, for the floor."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from trail.serving.launch import shared_directory
from trail.serving.offline import EngineError, OfflineEngine
from trail.serving.setup import serving_environment
from trail.wire.files import replacing

MAX_NUM_SEQS = 256
_VLLM = ("--max-num-batched-tokens", "16384", "--block-size", "32", "--skip-tokenizer-init")


class DrawError(RuntimeError):
    """vLLM gave no answers; the message holds the end of its log."""


@dataclass(frozen=True)
class Drawn:
    """Answers to prompts: `lengths` int32 [prompts, n], `ended` bool [prompts, n]; their tokens if asked."""

    lengths: npt.NDArray[np.int32]
    ended: npt.NDArray[np.bool_]
    tokens: npt.NDArray[np.int32]

    def outputs(self) -> list[tuple[int, ...]]:
        """The tokens of every answer, prompt by prompt."""
        ends = np.cumsum(self.lengths.ravel())
        starts = np.concatenate([[0], ends[:-1]])
        return [tuple(self.tokens[a:b].tolist()) for a, b in zip(starts, ends, strict=True)]


def draw(
    model: Path,
    prompts: Sequence[tuple[int, ...]],
    *,
    n: int,
    max_tokens: Sequence[int],
    max_model_len: int,
    stop_token_ids: Sequence[int],
    seed: int,
    log: Path,
    dtype: str = "float32",
    keep_tokens: bool = False,
    cached: Path | None = None,
    progress: Callable[[int], None] = lambda _done: None,
) -> Drawn:
    """`n` answers at temperature 1 to each of `prompts`; `progress` hears how many prompts are done.

    Answers to the very same question that lie at `cached` are taken from there, others are put there. Raises
    DrawError where vLLM fails; its log stays at `log`.
    """
    spec = {
        "model": str(model),
        "prompts": [list(prompt) for prompt in prompts],
        "n": n,
        "max_tokens": list(max_tokens),
        "max_model_len": max_model_len,
        "stop_token_ids": list(stop_token_ids),
        "seed": seed,
        "dtype": dtype,
        "max_num_seqs": MAX_NUM_SEQS,
        "keep_tokens": keep_tokens,
    }
    text = json.dumps(spec)
    asked = hashlib.sha256(text.encode()).hexdigest()
    if cached is not None and (found := _read(cached, asked)) is not None:
        progress(len(prompts))
        return found
    args = ["--model", str(model), "--dtype", dtype, "--max-model-len", str(max_model_len)]
    # One stream of random numbers for all: a generator a request would double a step's time.
    args += ["--max-num-seqs", str(MAX_NUM_SEQS), "--seed", str(seed), *_VLLM]
    sampling = {"n": n, "temperature": 1.0, "stop_token_ids": list(stop_token_ids)}
    requests = [
        {"id": i, "prompt": prompt, "sampling": {**sampling, "max_tokens": limit}}
        for i, (prompt, limit) in enumerate(zip(prompts, max_tokens, strict=True))
    ]
    lengths = np.zeros((len(prompts), n), dtype=np.int32)
    ended = np.zeros((len(prompts), n), dtype=np.bool_)
    tokens: list[Sequence[Sequence[int]]] = [()] * len(prompts)
    env = serving_environment(os.environ, local_model=True, cpus=os.cpu_count())
    log.unlink(missing_ok=True)
    with shared_directory() as directory:
        engine = OfflineEngine(args, env, directory, log)
        try:
            with engine:
                engine.wait_ready()
                for done, answers in enumerate(engine.run(requests), 1):
                    lengths[answers.id] = [len(answer) for answer in answers.tokens]
                    ended[answers.id] = [reason == "stop" for reason in answers.reasons]
                    if keep_tokens:
                        tokens[answers.id] = answers.tokens
                    progress(done)
        except EngineError as error:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
            raise DrawError(
                f"vLLM ended with {engine.exit_code()} and drew nothing; see {log}\n{tail}"
            ) from error
    flat = [token for answers in tokens for answer in answers for token in answer]
    drawn = Drawn(lengths, ended, np.asarray(flat, dtype=np.int32))
    if cached is not None:
        _write(cached, drawn, asked)
    return drawn


def _read(path: Path, asked: str) -> Drawn | None:
    """What `_write` put there for the same question; None for anything else."""
    try:
        with np.load(path) as arrays:
            if str(arrays["asked"]) == asked:
                return Drawn(arrays["lengths"], arrays["ended"], arrays["tokens"])
    except (OSError, ValueError, KeyError, BadZipFile):
        pass
    return None


def _write(path: Path, drawn: Drawn, asked: str) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, lengths=drawn.lengths, ended=drawn.ended, tokens=drawn.tokens, asked=np.array(asked))


def stop_tokens(model: Path) -> list[int]:
    """Token ids that end the model's answers. Raises ValueError where it names none."""
    found = None
    for name in ("generation_config.json", "config.json"):
        if found is None and (model / name).is_file():
            found = json.loads((model / name).read_text(encoding="utf-8")).get("eos_token_id")
    if found is None:
        raise ValueError(f"{model} names no eos_token_id, so its answers do not end by themselves")
    return [int(token) for token in (found if isinstance(found, list) else [found])]
