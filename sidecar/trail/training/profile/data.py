"""Prompts of a data set in the formats that data sets come in.

`jsonl`: lines with `prompt_token_ids` or `prompt`, optionally `kind`. `sharegpt`: `conversations` of turns
with `from` and `value`, taken up to the first answer. `alpaca`: `instruction` and `input`. `openai-batch`:
lines with `body.messages` or `body.prompt`. Each may be a JSON array as well, and compressed (`.gz`).
"""

import gzip
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from trail.bench.workload import PromptFileError

NO_PROMPT = "no turn of a user before the first answer"
NOT_TEXT = "images or other parts that are not text"


@dataclass(frozen=True)
class DataPrompt:
    """A prompt as a data set has it: one of `token_ids`, `text` and `messages` (with `tools`, for a chat
    template). `line` is where it begins in the file."""

    line: int
    token_ids: tuple[int, ...] | None = None
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    tools: Sequence[Any] | None = None
    kind: str | None = None


@dataclass(frozen=True)
class DataSet:
    """Prompts in the order of the file; `skipped` counts entries without a prompt by reason."""

    prompts: list[DataPrompt]
    skipped: Counter[str] = field(default_factory=Counter)


class _SkipError(Exception):
    """An entry that is well formed and has no prompt to record."""


class EntryError(Exception):
    """An entry that is not of its format."""


def read_data(path: Path, data_format: str = "auto", limit: int | None = None) -> DataSet:
    """The prompts of `path`, at most `limit`; `data_format` is a key of FORMATS or `auto`.

    Raises PromptFileError naming the file, the line at fault, and what to do.
    """
    data = DataSet([])
    parse = FORMATS.get(data_format)
    for line, entry in entries(path):
        where = f"prompts {path}, line {line}"
        if not isinstance(entry, dict):
            raise PromptFileError(
                f"{where}: expected an object, got {type(entry).__name__}; correct the line"
            )
        if parse is None:
            parse = FORMATS[_detected(entry, where)]
        try:
            data.prompts.extend(parse(line, entry))
        except _SkipError as reason:
            data.skipped[str(reason)] += 1
        except EntryError as error:
            raise PromptFileError(f"{where}: {error}; correct the line, or name another --format") from error
        if limit is not None and len(data.prompts) >= limit:
            break
    if not data.prompts:
        raise PromptFileError(
            f"prompts {path}: no prompts in it{skipped_text(data.skipped)}; give another file"
        )
    return DataSet(data.prompts[:limit], data.skipped)


def skipped_text(skipped: Mapping[str, int]) -> str:
    """What was left out, in brackets; empty where nothing was."""
    return (
        f" (left out: {', '.join(f'{n} with {reason}' for reason, n in skipped.items())})" if skipped else ""
    )


def entries(path: Path) -> Iterator[tuple[int, Any]]:
    """Line and value of every entry: of a JSON array, or of lines of JSON."""
    try:
        opened: TextIO
        with (
            gzip.open(path, "rt", encoding=_ENCODING)
            if path.suffix == ".gz"
            else path.open(encoding=_ENCODING)
        ) as opened:
            lines = enumerate(opened, 1)
            # What comes before the first entry may be blank.
            first = next(((n, line) for n, line in lines if line.strip()), None)
            if first is None:
                return
            if first[1].lstrip().startswith("["):
                text = "\n" * (first[0] - 1) + first[1] + opened.read()
                yield from _array(path, text)
            else:
                yield from _lines(path, itertools.chain([first], lines))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise PromptFileError(
            f"prompts {path}: cannot be read ({error}); give a whole file of UTF-8"
        ) from error


def _lines(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Any]]:
    for number, line in lines:
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise PromptFileError(
                    f"prompts {path}, line {number}: no JSON ({error}); correct or remove the line"
                ) from error


_ENCODING = "utf-8-sig"
"""UTF-8, with or without the mark that some editors put in front."""
_BETWEEN = re.compile(r"[\s,]*")


def _array(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Entries one by one: a list of all of them takes several times the room of the text."""
    decoder = json.JSONDecoder()
    at, line = text.index("[") + 1, 1
    counted = 0
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty string
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            return
        try:
            entry, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            cause = "the file ends inside the array" if at == len(text) else f"no JSON ({error})"
            raise PromptFileError(f"prompts {path}, line {line}: {cause}; give a whole file") from error
        yield line, entry


def _detected(entry: Mapping[str, Any], where: str) -> str:
    for name, keys in _SIGNS.items():
        if any(key in entry for key in keys):
            return name
    fields = ", ".join(map(str, entry)) or "none"
    raise PromptFileError(
        f"{where}: none of the known formats has these fields ({fields}); write lines with prompt, or name"
        f" --format ({', '.join(FORMATS)})"
    )


def _jsonl(line: int, entry: Mapping[str, Any]) -> list[DataPrompt]:
    kind = entry.get("kind")
    if kind is not None and not isinstance(kind, str):
        raise EntryError("the field kind must be a string")
    ids = entry.get("prompt_token_ids")
    if ids is not None:
        return [DataPrompt(line, token_ids=_token_ids(ids, "prompt_token_ids"), kind=kind)]
    return [DataPrompt(line, text=_text(entry.get("prompt"), "prompt_token_ids or prompt"), kind=kind)]


def _sharegpt(line: int, entry: Mapping[str, Any]) -> list[DataPrompt]:
    turns = entry.get("conversations")
    if not isinstance(turns, list):
        raise EntryError("needs a list of turns 'conversations'")
    messages = []
    for turn in turns:
        speaker = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
        if not isinstance(speaker, str):
            raise EntryError("a turn needs 'from' and 'value'")
        role = _ROLES.get(speaker.lower())
        if role is None:
            break  # the first answer, by whatever name the model goes
        messages.append({"role": role, "content": _text(turn.get("value", turn.get("content")), "value")})
    if not any(message["role"] == "user" for message in messages):
        raise _SkipError(NO_PROMPT)
    return [DataPrompt(line, messages=tuple(messages))]


def _alpaca(line: int, entry: Mapping[str, Any]) -> list[DataPrompt]:
    instruction, context = _text(entry.get("instruction"), "instruction"), entry.get("input")
    if context is not None and not isinstance(context, str):
        raise EntryError("the field input must be a string")
    content = f"{instruction}\n\n{context}" if context else instruction
    return [DataPrompt(line, messages=({"role": "user", "content": content},))]


def _openai_batch(line: int, entry: Mapping[str, Any]) -> list[DataPrompt]:
    body = entry.get("body")
    if not isinstance(body, dict):
        raise EntryError("needs an object 'body'")
    messages = body.get("messages")
    if messages is not None:
        if not isinstance(messages, list) or not messages:
            raise EntryError("body.messages must be a list of messages, not empty")
        tools = body.get("tools")
        if tools is not None and not isinstance(tools, list):
            raise EntryError("body.tools must be a list")
        return [DataPrompt(line, messages=tuple(map(_message, messages)), tools=tools)]
    prompt = body.get("prompt")
    # One prompt as text or token ids, or a list of such.
    several = isinstance(prompt, list) and not any(map(_is_token, prompt))
    return [_completion(line, one) for one in (prompt if several and prompt else [prompt])]


def _completion(line: int, prompt: Any) -> DataPrompt:
    if isinstance(prompt, list):
        return DataPrompt(line, token_ids=_token_ids(prompt, "body.prompt"))
    return DataPrompt(line, text=_text(prompt, "body.messages or body.prompt"))


def _message(message: Any) -> Mapping[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise EntryError("a message of body.messages needs 'role' and 'content'")
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise _SkipError(NOT_TEXT)
        content = "".join(str(part.get("text", "")) for part in content)
    if content is not None and not isinstance(content, str):
        raise EntryError("a message's content must be text or a list of parts")
    return {**message, "content": content or ""}


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise EntryError(f"needs {name}, not empty")
    return value


def _token_ids(value: Any, name: str) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or not value
        or not all(_is_token(token) and token >= 0 for token in value)
    ):
        raise EntryError(f"{name} must be a list of token numbers, not empty")
    return tuple(value)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_ROLES = {"human": "user", "user": "user", "system": "system"}
_SIGNS = {
    "openai-batch": ("body",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction",),
    "jsonl": ("prompt_token_ids", "prompt"),
}
FORMATS: Mapping[str, Callable[[int, Mapping[str, Any]], list[DataPrompt]]] = {
    "jsonl": _jsonl,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "openai-batch": _openai_batch,
}
"""Parsers of one entry, by the name of the format."""
