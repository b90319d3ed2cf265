"""Prompts and the lengths of their answers, where there are no hidden states: a log of any server.

Lines of JSON with `prompt_token_ids` or `prompt`, and `output_tokens`, a number or one for each of several
answers. `finish_reason`, a string or one an answer, marks those that were cut by "length"; `kind` is
optional.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trail.bench.workload import PromptFileError
from trail.training.fitting import Corpus
from trail.training.profile.data import FORMATS, DataPrompt, EntryError, entries
from trail.training.profile.tokenise import tokenised

CUT = "length"


@dataclass(frozen=True)
class Lengths:
    """The answers, one entry an answer; `kinds` [n] where the file names any."""

    corpus: Corpus
    kinds: list[str] | None


def read_lengths(path: Path, architecture: Mapping[str, Any], directory: Path | None) -> Lengths:
    """The answers that the file `path` tells of, by a model of that `architecture` (`fingerprint`'s fields).

    Texts are read with the tokenizer in the model's `directory`.

    Raises PromptFileError naming the line at fault, SetupError without a usable tokenizer, and ValueError
    where the model does not say how many tokens it knows.
    """
    vocab_size = architecture.get("vocab_size")
    if vocab_size is None:
        raise ValueError("the model's configuration names no vocab_size; give that of a language model")
    asked: list[DataPrompt] = []
    answers: list[list[tuple[int, bool]]] = []
    for line, entry in entries(path):
        try:
            if not isinstance(entry, dict):
                raise EntryError(f"expected an object, got {type(entry).__name__}")  # noqa: TRY301 - named below
            asked += FORMATS["jsonl"](line, entry)
            answers.append(_answers(entry))
        except EntryError as error:
            raise PromptFileError(f"lengths {path}, line {line}: {error}; correct the line") from error
    if not asked:
        raise PromptFileError(f"lengths {path}: no prompts in it; give another file")
    if directory is None and (text := next((p for p in asked if p.token_ids is None), None)):
        raise PromptFileError(f"lengths {path}, line {text.line}: a text; give --model to read it as tokens")
    prompts = tokenised(asked, path, directory or Path(), int(vocab_size), trust_remote_code=False)
    one_each = [(p, *answer) for p, several in zip(prompts, answers, strict=True) for answer in several]
    corpus = Corpus.of_lengths(
        [prompt.token_ids for prompt, _, _ in one_each],
        np.array([length for _, length, _ in one_each], dtype=np.int64),
        np.array([cut for _, _, cut in one_each], dtype=np.bool_),
        vocab_size=int(vocab_size),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    kinds = [prompt.kind or "" for prompt, _, _ in one_each]
    return Lengths(corpus, kinds if any(kinds) else None)


def _answers(entry: Mapping[str, Any]) -> list[tuple[int, bool]]:
    """Length in tokens of every answer, and whether it was cut."""
    lengths, reasons = entry.get("output_tokens"), entry.get("finish_reason")
    lengths = lengths if isinstance(lengths, list) else [lengths]
    reasons = reasons if isinstance(reasons, list) else [reasons] * len(lengths)
    if not lengths or not all(type(n) is int and n > 0 for n in lengths):
        raise EntryError("needs output_tokens, a positive whole number or a list of such")
    if len(reasons) != len(lengths):
        raise EntryError(f"{len(lengths)} output_tokens need as many finish_reason, got {len(reasons)}")
    return [(n, reason == CUT) for n, reason in zip(lengths, reasons, strict=True)]
