"""One frame of `trail top`: readings in, something that rich can print out. No I/O, no clock."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trail.commands.top.figures import (
    predicted_length,
    quality,
    running_first,
    seconds,
    short_id,
    tokens,
)
from trail.commands.top.source import Reading
from trail.wire.changes import Cause

WIDTH, HEIGHT = 80, 24
"""The terminal for which every frame has room."""
_BAR = 12
_TIGHT, _FULL = 0.85, 0.95
_OLD_S = 5.0


@dataclass(frozen=True)
class _Engine:
    """One engine of one reading, with the sidecar that it belongs to."""

    name: str
    snapshot: Any
    engine: Any
    problem: str


def frame(readings: Sequence[Reading], width: int = WIDTH, height: int = HEIGHT) -> RenderableType:
    """What a terminal of `width` columns and `height` lines shows of `readings`."""
    engines = [engine for reading in readings for engine in _engines(reading)]
    lines: list[RenderableType] = [_title(readings, engines)]
    lines += [_trouble(text) for text in _troubles(readings, engines)]
    if engines:
        lines.append(_engine_table(engines))
        for reading in readings:
            lines += _about(reading, engines, width)
    used = len(lines) + (len(engines) if engines else 0)
    if engines:
        lines += _requests(engines, width, max(height - used - 1, 0))
    return Group(*lines)


def _engines(reading: Reading) -> Iterable[_Engine]:
    snapshot = reading.snapshot
    if snapshot is None:
        return
    problems = [status.problem for status in snapshot.description.engines]
    for place, engine in enumerate(snapshot.engines):
        pod = snapshot.pod or reading.address
        name = pod if len(snapshot.engines) == 1 else f"{pod}/{engine.engine}"
        yield _Engine(name, snapshot, engine, problems[place] if place < len(problems) else "")


def _title(readings: Sequence[Reading], engines: Sequence[_Engine]) -> Text:
    times = [r.snapshot.time_s for r in readings if r.snapshot is not None]
    at = time.strftime("%H:%M:%S", time.localtime(max(times))) if times else "--:--:--"
    waiting = sum(e.engine.backlog.waiting_requests for e in engines)
    running = sum(e.engine.backlog.running_requests for e in engines)
    text = Text.assemble(("TRAIL ", "bold"), at, "   ", _count(len(engines), "engine"), no_wrap=True)
    text.append(f"   {running} running, {waiting} waiting")
    if any(e.snapshot.description.policy.shadow for e in engines):
        text.append("   shadow: vLLM's own order", style="bold yellow")
    text.truncate(WIDTH, overflow="ellipsis")
    return text


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _troubles(readings: Sequence[Reading], engines: Sequence[_Engine]) -> Iterable[str]:
    for reading in readings:
        if reading.trouble:
            old = f" (shown: {reading.age_s:.0f} s old)" if reading.snapshot is not None else ""
            yield reading.trouble + old
    for engine in engines:
        if engine.problem:
            yield f"{engine.name}: {engine.problem}"


def _trouble(text: str) -> Text:
    return Text(text, style="bold red", overflow="ellipsis", no_wrap=True)


def _table(*columns: tuple[str, int, bool]) -> Table:
    """A table without lines; columns of (heading, width, to the right)."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    for heading, width, right in columns:
        table.add_column(
            heading, width=width, no_wrap=True, overflow="ellipsis", justify="right" if right else "left"
        )
    return table


def _engine_table(engines: Sequence[_Engine]) -> Table:
    table = _table(("engine", 16, False), ("policy", 13, False), ("waits", 5, True), ("runs", 6, True),
                   ("KV", 4, True), ("tok/s", 5, True), ("queue s", 7, True), ("preempted", 9, True),
                   ("denied", 6, True))  # fmt: skip
    for e in engines:
        backlog = e.engine.backlog
        table.add_row(
            Text(short_id(e.name, 16)),
            Text(e.snapshot.policy_text, style="" if backlog.ordering else "yellow"),
            str(backlog.waiting_requests),
            _runs(e),
            Text(f"{backlog.kv_usage:.0%}", style=_kv_style(backlog.kv_usage)),
            tokens(backlog.tokens_per_s) if backlog.tokens_per_s > 0 else "-",
            seconds(backlog.wait_s),
            f"{e.engine.policy_preemptions_total}+{e.engine.memory_preemptions_total}",
            str(sum(e.engine.denied_total.values())),
        )
    return table


def _runs(engine: _Engine) -> str:
    running = str(engine.engine.backlog.running_requests)
    for status in engine.snapshot.description.engines:
        if status.hello.engine == engine.engine.engine and status.hello.max_running:
            return f"{running}/{status.hello.max_running}"
    return running


def _kv_style(usage: float) -> str:
    return "red" if usage >= _FULL else "yellow" if usage >= _TIGHT else ""


def _about(reading: Reading, engines: Sequence[_Engine], width: int) -> list[RenderableType]:
    """Of one sidecar: c with its generation and reason, its pacing, and how good predictions were."""
    snapshot = reading.snapshot
    if snapshot is None:
        return []
    whose = ""
    if len({id(e.snapshot) for e in engines}) > 1:
        whose = short_id(snapshot.pod or reading.address, 16) + "  "
    policy = snapshot.description.policy
    reason = f": {snapshot.policy_reason}" if snapshot.policy_reason else ""
    why = Text.assemble((whose, "dim"), (f"c {policy.c:.2f}", "bold"), f" gen {policy.generation}{reason}")
    off = Text.assemble((whose, "dim"), _quality_text([life for e in snapshot.engines for life in e.ended]))
    pacing = snapshot.description.pacing
    tail = f"   pacing {pacing}" if pacing else ""  # of a sidecar that does not say
    why.truncate(width - len(tail), overflow="ellipsis")
    why.append(tail, "dim")
    off.truncate(width, overflow="ellipsis")
    return [why, off]


def _quality_text(ended: Sequence[Any]) -> str:
    q = quality(ended)
    if not q.requests:
        return "predictions: no request has ended that had one"
    refined = "" if math.isnan(q.refined_mae) else f", {q.refined_mae:.0f} refined"
    return (
        f"predictions: off by {q.initial_mae:.0f} ({q.bias:+.0f}){refined}, of {q.mean_tokens:.0f} tokens"
        f" (last {q.requests} answers)"
    )


def _requests(engines: Sequence[_Engine], width: int, room: int) -> list[RenderableType]:
    """Tables of running and waiting requests in `room` lines, what one does not need going to the other."""
    running = running_first(life for e in engines for life in e.engine.running)
    waiting = [life for e in engines for life in e.engine.waiting]
    total_running = sum(e.engine.backlog.running_requests for e in engines)
    total_waiting = sum(e.engine.backlog.waiting_requests for e in engines)
    rows = room - 4  # two headings, two blank lines
    if rows <= 0:
        return []
    for_running = min(len(running), max(rows - len(waiting), (rows + 1) // 2))
    for_waiting = min(len(waiting), rows - for_running)
    names = max(width - 62, 14)
    parts: list[RenderableType] = []
    if running:
        parts += [Text(), _running_table(running[:for_running], total_running, names)]
    if waiting:
        parts += [Text(), _waiting_table(waiting[:for_waiting], total_waiting, names)]
    return parts


def _heading(what: str, shown: int, total: int) -> str:
    return f"{what} {total}" if shown == total else f"{what} {shown} of {total}"


def _running_table(lives: Sequence[Any], total: int, names: int) -> Table:
    table = _table((_heading("running", len(lives), total), names, False), ("age", 5, True),
                   ("of", 5, True), ("", _BAR, False), ("initial", 7, True), ("cut-off", 7, True),
                   ("gave way", 8, True), ("waited s", 8, True))  # fmt: skip
    for life in lives:
        length = predicted_length(life)
        table.add_row(
            Text(short_id(life.request_id, names)),
            tokens(life.age),
            tokens(length),
            _bar(life.age, length),
            tokens(life.initial_prediction) if life.HasField("initial_prediction") else "-",
            Text("safe", style="green") if life.protected else _cutoff(life),
            str(life.policy_preemptions + life.memory_preemptions),
            seconds(life.queued_s) if life.HasField("queued_s") else "-",
        )
    return table


def _cutoff(life: Any) -> str:
    return tokens(life.cutoff_age) if life.HasField("cutoff_age") else "-"


def _bar(age: int, length: float) -> Text:
    """How far a request is in what is predicted of it."""
    if math.isnan(length) or length <= 0:
        return Text("·" * _BAR, style="dim")
    full = min(round(_BAR * age / length), _BAR)
    return Text.assemble(("━" * full, "cyan"), ("─" * (_BAR - full), "dim"))


def _waiting_table(lives: Sequence[Any], total: int, names: int) -> Table:
    table = _table((_heading("waiting", len(lives), total), names, False), ("age", 5, True),
                   ("left", 5, True), ("prompt", 6, True), ("initial", 7, True), ("gave way", 8, True),
                   ("since s", 7, True), ("denied by", 15, False))  # fmt: skip
    for life in lives:
        table.add_row(
            Text(short_id(life.request_id, names)),
            tokens(life.age),
            tokens(life.predicted_remaining) if life.HasField("predicted_remaining") else "-",
            tokens(life.prompt_tokens),
            tokens(life.initial_prediction) if life.HasField("initial_prediction") else "-",
            str(life.policy_preemptions + life.memory_preemptions),
            _since(life),
            ", ".join(_cause(number) for number in life.denied),
        )
    return table


def _since(life: Any) -> Text:
    since_s = max(life.time_s - life.arrival_time_s, 0.0)
    return Text(seconds(since_s), style="yellow" if since_s > _OLD_S else "")


def _cause(number: int) -> str:
    try:
        return Cause(number).label
    except ValueError:  # of a newer sidecar
        return f"cause {number}"
