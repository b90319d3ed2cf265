"""Waits until TRAIL is on or off for a workload, and shows how far that is. It reads, and writes nothing."""

import argparse
import asyncio
import math
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, TextIO

from trail.commands.cluster.outlook import Operator, find_operator, foreign, look
from trail.commands.cluster.progress import Goal, Progress, Seen, Stage, State, overdue, progress
from trail.commands.cluster.session import (
    EXIT_FAILED,
    NO_ANSWER,
    InterruptedWaitError,
    LateError,
    Object,
    Session,
    said,
)
from trail_operator import names
from trail_operator.admission.pods import annotations
from trail_operator.cluster_api.kube import KubeError, path

TIMEOUT_S = 300.0
POLL_S = 1.0
_LOOK_S = 20.0
"""For all that is read at one moment."""
_PASSES = frozenset({429, 500, 502, 503, 504})
"""What an API server answers for a while."""


class Clock(Protocol):
    """Monotonic seconds, and their passing."""

    def now_s(self) -> float:
        """The present."""

    async def sleep(self, seconds: float) -> None:
        """Lets time pass."""


class _RealClock:
    def now_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


CLOCK: Clock = _RealClock()


def add_wait_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of what waits."""
    parser.add_argument("--wait", action=argparse.BooleanOptionalAction, default=True,
        help="wait until it has come about, and say what is seen (yes)")  # fmt: skip
    parser.add_argument("--timeout", type=_seconds, default=TIMEOUT_S, metavar="SECONDS",
        help="wait no longer than that; exit code 3 then (%(default)g)")  # fmt: skip


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: give seconds, more than 0")
    return value


async def wait(session: Session, goal: Goal, timeout_s: float) -> int:
    """0 once it has come about, 1 where it will not. Raises LateError, and InterruptedWaitError on Ctrl-C."""
    lines, reader = Lines(sys.stdout), Reader(session, goal)
    try:
        end = await _watch(goal, reader, lines, timeout_s)
    except asyncio.CancelledError as stop:
        raise InterruptedWaitError(f"interrupted; {goal.left}") from stop
    finally:
        lines.clear()
    for line in (f"{goal.workload}: {end.sentence}", *(f"  {detail}" for detail in end.details)):
        print(line)
    return 0 if end.state is State.DONE else EXIT_FAILED


async def _watch(goal: Goal, reader: "Reader", lines: "Lines", timeout_s: float) -> Progress:
    begin_s = CLOCK.now_s()
    last: Progress | None = None
    waited_s = 0.0
    while True:
        silence = ""
        try:
            async with asyncio.timeout(_LOOK_S):
                last = progress(goal, await reader.read())
        except NO_ANSWER as error:
            silence = f"the cluster does not answer ({said(error)})"
        except KubeError as error:
            if error.status not in _PASSES:
                raise
            silence = f"the cluster does not answer ({error})"
        if last is not None and not silence and last.state is not State.WAITING:
            nothing_to_do = goal.already and last.state is State.DONE and waited_s == 0
            return replace(last, sentence=f"nothing to do: {last.sentence}") if nothing_to_do else last
        reader.stamped = last is not None and last.stage is not Stage.STAMP
        waited_s = CLOCK.now_s() - begin_s
        if waited_s >= timeout_s:
            sight = reader.seen.sight if reader.seen is not None else None
            raise LateError(overdue(goal, last, sight, timeout_s, silence))
        lines.show(f"{goal.workload}: {silence or (last.sentence if last is not None else '')}", waited_s)
        await CLOCK.sleep(min(POLL_S, timeout_s - waited_s))


class Reader:
    """Reads a workload, its pods, its policies, and the operator as long as that has something to do."""

    def __init__(self, session: Session, goal: Goal) -> None:
        self._session = session
        self._goal = goal
        self._operator: Operator | None = None
        self._lists_pods = True
        self.stamped = False
        """Whether the operator has done its part: it is not looked at any more."""
        self.seen: Seen | None = None
        """What was read last."""

    async def read(self) -> Seen:
        """What is there now. Raises as `Kube` does."""
        goal, session = self._goal, self._session
        try:
            obj = await session.kube.get(goal.workload.path(session.namespace))
        except KubeError as error:
            if error.status != 404 or self.seen is None:
                raise
            return Seen(None, None, self.seen.sight)
        # Who may not look at it is not asked again.
        if self._operator is None or (self._operator.visible and not self.stamped):
            self._operator = await find_operator(session)
        template = (obj.get("spec") or {}).get("template") or {}
        namespaces = foreign(goal.annotation, annotations(template).get(names.INJECT))
        sight = await look(session, self._operator, namespaces, strict=False)
        self.seen = Seen(obj, await self._pods(obj), sight)
        return self.seen

    async def _pods(self, obj: Object) -> list[Object] | None:
        if not self._lists_pods:
            return None
        try:
            return await self._session.kube.all(path("v1", "pods", self._session.namespace), selector(obj))
        except KubeError as error:
            if error.status != 403:
                raise
            self._lists_pods = False
            return None


def selector(obj: Mapping[str, Any]) -> str:
    """A workload's selector as a query has it; '' for none."""
    wanted = (obj.get("spec") or {}).get("selector") or {}
    parts = [f"{key}={value}" for key, value in sorted((wanted.get("matchLabels") or {}).items())]
    for one in wanted.get("matchExpressions") or ():
        key, values = one.get("key"), ",".join(one.get("values") or ())
        parts += {
            "In": [f"{key} in ({values})"],
            "NotIn": [f"{key} notin ({values})"],
            "Exists": [str(key)],
            "DoesNotExist": [f"!{key}"],
        }.get(str(one.get("operator")), [])
    return ",".join(parts)


class Lines:
    """Progress on a stream: one line that changes on a terminal, else a line for each change."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._updates = stream.isatty()
        self._last = ""

    def show(self, text: str, waited_s: float) -> None:
        """`text` is how it stands."""
        if self._updates:
            room = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{f'[{waited_s:.0f} s] {text}'[:room]}")
            self._stream.flush()
        elif text != self._last:
            print(text, file=self._stream, flush=True)
        self._last = text

    def clear(self) -> None:
        """Leaves an empty line on a terminal, and on a pipe everything."""
        if self._updates and self._last:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
