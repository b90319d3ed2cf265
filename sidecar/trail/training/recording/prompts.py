"""The prompts of a recording: token ids and kinds, a JSON line each."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trail.training.recording.layout import PROMPTS_FILE, RecordingError


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt as the model takes it; `kind` where the data names one."""

    token_ids: tuple[int, ...]
    kind: str | None = None


def prompt_lines(prompts: Sequence[TokenPrompt]) -> bytes:
    """The content of `prompts.jsonl`."""
    lines = []
    for prompt in prompts:
        row: dict[str, object] = {"prompt_token_ids": prompt.token_ids}
        if prompt.kind is not None:
            row["kind"] = prompt.kind
        lines.append(json.dumps(row) + "\n")
    return "".join(lines).encode()


def prompts_sha256(prompts: Sequence[TokenPrompt]) -> str:
    """sha256 (hex) of `prompts.jsonl`."""
    return hashlib.sha256(prompt_lines(prompts)).hexdigest()


def read_prompts(path: Path, sha256: str) -> list[TokenPrompt]:
    """The prompts of the recording in directory `path`. Raises RecordingError unless they have `sha256`."""
    file = path / PROMPTS_FILE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RecordingError(f"cannot read {file} ({error}); copy or record it again") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RecordingError(
            f"{file} is not what was recorded (its checksum differs); copy or record it again"
        )
    rows = [json.loads(line) for line in content.splitlines()]
    return [TokenPrompt(tuple(row["prompt_token_ids"]), row.get("kind")) for row in rows]
