"""The sidecar's decision log (`sidecar.history.decision_log`) read back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trail.sidecar.history.decision_log import FORMAT
from trail.sidecar.history.rotating import parts
from trail.wire.names import ENV_DECISION_LOG

SHADOW = "-shadow"
"""Ends the text of a policy that only watched."""


class LogError(ValueError):
    """A log that cannot be used; the message says where and what to do."""


@dataclass(frozen=True)
class Logged:
    """One finished request. Seconds and tokens; None: not known. `refined` holds (age, remaining)."""

    request_id: str
    policy: str
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    initial: float | None
    refined: tuple[tuple[int, float], ...]
    first_token_s: float | None
    total_s: float | None
    preemptions: int
    whole_life: bool
    """The sidecar knew it from its arrival on, and it ran under a live sidecar."""


@dataclass
class EngineLog:
    """One engine core: its limits as it stated them (0: not stated), and requests in order of arrival."""

    engine: int
    model: str = ""
    slots: int = 0
    kv_blocks: int = 0
    block_tokens: int = 0
    requests: list[Logged] = field(default_factory=list)
    loads: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class DecisionRecord:
    """All parts of a log. `damaged` counts lines that could not be read, as a killed process leaves."""

    path: Path
    engines: tuple[EngineLog, ...]
    damaged: int


def read_log(path: Path) -> DecisionRecord:
    """The log at `path` with its older parts beside it. Raises LogError."""
    found = parts(path)
    if not found:
        raise LogError(
            f"no decision log at {path}: start the sidecar with --decision-log {path} (or {ENV_DECISION_LOG})"
        )
    engines: dict[int, EngineLog] = {}
    damaged = 0
    for part in found:
        for where, line in _lines(part):
            try:
                record = json.loads(line)
                _take(record, engines, where)
            except LogError:
                raise
            except (ValueError, KeyError, TypeError):
                damaged += 1
    for engine in engines.values():
        engine.requests.sort(key=lambda request: request.arrival_s)
    return DecisionRecord(path, tuple(engines[number] for number in sorted(engines)), damaged)


def _lines(part: Path) -> Iterator[tuple[str, str]]:
    try:
        with part.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                yield f"{part}, line {number}", line
    except OSError as error:
        raise LogError(f"{part}: cannot be read ({error.strerror})") from error


def _take(record: Mapping[str, Any], engines: dict[int, EngineLog], where: str) -> None:
    kind = record["kind"]
    if kind == "log":
        if record["format"] != FORMAT:
            raise LogError(f"{where}: format {record['format']}, this version reads {FORMAT}")
        return
    engine = engines.setdefault(int(record["engine"]), EngineLog(int(record["engine"])))
    if kind == "engine":
        engine.model, engine.slots = str(record["model"]), int(record["slots"])
        engine.kv_blocks, engine.block_tokens = int(record["kv_blocks"]), int(record["block_tokens"])
    elif kind == "request":
        engine.requests.append(_request(record))
    elif kind == "load":
        engine.loads.append(dict(record))


def _request(record: Mapping[str, Any]) -> Logged:
    return Logged(
        request_id=str(record["id"]),
        policy=str(record["policy"]),
        arrival_s=float(record["arrival_s"]),
        prompt_tokens=int(record["prompt_tokens"]),
        output_tokens=int(record["output_tokens"]),
        initial=_optional(record["initial"]),
        refined=tuple((int(age), float(left)) for age, left in record["refined"]),
        first_token_s=_optional(record["first_token_s"]),
        total_s=_optional(record["total_s"]),
        preemptions=int(record["policy_preemptions"]) + int(record["memory_preemptions"]),
        whole_life=not record["found"] and not record["fallback_steps"],
    )


def _optional(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]


def shadow_requests(requests: Sequence[Logged]) -> list[Logged]:
    """Those that ran in the engine's own order, which is what an estimate compares with."""
    return [r for r in requests if r.policy.endswith(SHADOW) or r.policy == "fcfs"]
