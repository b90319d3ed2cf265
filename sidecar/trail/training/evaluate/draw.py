"""Answers drawn with vLLM, for the floor: the parent's side of `resample_run`."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from trail.serving.setup import serving_environment

MAX_NUM_SEQS = 256


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
    kept: Path | None = None,
    progress: Callable[[int], None] = lambda _done: None,
) -> Drawn:
    """`n` answers at temperature 1 to each of `prompts`; `progress` hears how many prompts are done.

    Answers to the very same question that lie at `kept` are taken from there, others are put there. Raises
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
    if kept is not None and (found := _read(kept, asked)) is not None:
        progress(len(prompts))
        return found
    env = serving_environment(os.environ, local_model=True, cpus=os.cpu_count())
    with tempfile.TemporaryDirectory(prefix="trail-draw-") as name:
        given, out = Path(name) / "spec.json", Path(name) / "out.npz"
        given.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "trail.training.evaluate.resample_run", str(given), str(out)]
        with (
            log.open("w", encoding="utf-8") as err,
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=err, text=True) as child,
        ):
            try:
                for line in child.stdout or ():
                    if line.startswith('{"done": '):
                        progress(int(json.loads(line)["done"]))
            except BaseException:
                child.terminate()
                raise
        if child.returncode or not out.is_file():
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
            raise DrawError(f"vLLM ended with {child.returncode} and drew nothing; see {log}\n{tail}")
        with np.load(out) as arrays:
            drawn = Drawn(arrays["lengths"], arrays["ended"], arrays["tokens"])
    if kept is not None:
        _write(kept, drawn, asked)
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
    beside = path.with_name(path.name + ".part.npz")
    np.savez(beside, lengths=drawn.lengths, ended=drawn.ended, tokens=drawn.tokens, asked=np.array(asked))
    beside.replace(path)


def stop_tokens(model: Path) -> list[int]:
    """Token ids that end the model's answers. Raises ValueError where it names none."""
    found = None
    for name in ("generation_config.json", "config.json"):
        if found is None and (model / name).is_file():
            found = json.loads((model / name).read_text(encoding="utf-8")).get("eos_token_id")
    if found is None:
        raise ValueError(f"{model} names no eos_token_id, so its answers do not end by themselves")
    return [int(token) for token in (found if isinstance(found, list) else [found])]
