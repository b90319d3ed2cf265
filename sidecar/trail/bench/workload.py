"""What a repeat sends: prompts, sampling seeds and arrival times, all drawn from one seed."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class PromptFileError(ValueError):
    """A prompt file that cannot be used; the message names file, line and remedy."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as token ids, or as text for the server to tokenise."""

    token_ids: tuple[int, ...] | None
    text: str | None


@dataclass(frozen=True)
class BenchRequest:
    """One request of a run. `arrival_s` counts from the start of the run."""

    index: int
    prompt: Prompt
    arrival_s: float
    seed: int
    max_tokens: int


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a JSON-lines file (`.gz` allowed): each line has `prompt_token_ids` or else `prompt`.

    Raises PromptFileError naming the line at fault.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, UnicodeDecodeError, EOFError) as e:
        raise PromptFileError(f"prompts {path}: cannot be read ({e})") from e
    prompts = [_prompt(path, i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not prompts:
        raise PromptFileError(f"prompts {path}: no lines in it")
    return prompts


def _prompt(path: Path, number: int, line: str) -> Prompt:
    where = f"prompts {path}, line {number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as e:
        raise PromptFileError(f"{where}: no JSON ({e})") from e
    if not isinstance(row, dict):
        raise PromptFileError(f"{where}: expected an object with 'prompt_token_ids' or 'prompt'")
    ids, words = row.get("prompt_token_ids"), row.get("prompt")
    if isinstance(ids, list) and ids and all(isinstance(t, int) and t >= 0 for t in ids):
        return Prompt(tuple(ids), None)
    if ids is None and isinstance(words, str) and words:
        return Prompt(None, words)
    raise PromptFileError(f"{where}: needs 'prompt_token_ids' (token numbers) or 'prompt' (text), not empty")


def repeat_rng(seed: int, repeat: int) -> np.random.Generator:
    """The generator of one repeat; repeats are independent of each other and of how many there are."""
    return np.random.default_rng(np.random.SeedSequence([seed, repeat]))


def choose_prompts(pool: Sequence[Prompt], n: int, rng: np.random.Generator) -> list[Prompt]:
    """`n` prompts: the pool shuffled, again and again where it is smaller than `n`."""
    order: list[int] = []
    while len(order) < n:
        order.extend(rng.permutation(len(pool)).tolist())
    return [pool[i] for i in order[:n]]


def build_requests(
    prompts: Sequence[Prompt],
    arrivals_s: NDArray[np.float64],
    max_tokens: Sequence[int],
    rng: np.random.Generator,
) -> list[BenchRequest]:
    """Join prompts with arrival times; every request gets a sampling seed of its own.

    A seed per request makes the sampled tokens independent of batch composition, hence of the arm.
    """
    seeds = rng.integers(0, 2**31 - 1, size=len(prompts))
    return [
        BenchRequest(i, prompt, float(at), int(s), limit)
        for i, (prompt, at, s, limit) in enumerate(zip(prompts, arrivals_s, seeds, max_tokens, strict=True))
    ]
