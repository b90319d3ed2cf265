"""`trail top`: options, and the terminal's part."""

import argparse
import io
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console, RenderableType
from rich.live import Live

from trail.commands.top.frame import HEIGHT, WIDTH, frame
from trail.commands.top.source import AddressError, Reading, SnapshotSource, ask_all
from trail.wire.files import write_text
from trail.wire.names import DEFAULT_DIR, ENV_DIR, socket_path

_LEAST_S, _MOST_S = 0.2, 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trail top`."""
    parser.usage = "trail top [ADDRESS ...] [--once] [--every SECONDS]"
    parser.description = (
        "Show what sidecars do: engines with queue, KV pressure and preemptions, c and why it is what it is,"
        " how good predictions were, and every request with its prediction against its actual age. Reads"
        " only. Running requests are listed as they would give way, waiting ones as they will be served."
        " Ctrl-C ends it."
    )
    add = parser.add_argument
    add("addresses", metavar="ADDRESS", nargs="*",
        help="HOST:PORT (a sidecar's --rank-address) or the directory it shares with vLLM, one or more"
        f" (${ENV_DIR}, or every {DEFAULT_DIR}*)")  # fmt: skip
    add("--once", action="store_true", help="print one frame and end; so it does where there is no terminal")
    add("--svg", type=Path, metavar="FILE", help="write one frame as a picture, too, and end")
    add("--every", type=float, default=1.0, metavar="SECONDS", help="between two frames (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1: one frame was asked for and no sidecar answered; 2: bad usage."""
    if not _LEAST_S <= args.every <= _MOST_S:
        print(f"trail top: --every must lie in [{_LEAST_S:g}, {_MOST_S:g}] seconds", file=sys.stderr)
        return 2
    addresses = args.addresses or sidecars_here(os.environ)
    try:
        sources = [SnapshotSource(address) for address in dict.fromkeys(addresses)]
    except AddressError as error:
        print(f"trail top: {error}", file=sys.stderr)
        return 2
    console = Console(highlight=False)
    try:
        if args.once or args.svg is not None or not console.is_terminal:
            return _once(console, sources, args.svg)
        return _live(console, sources, args.every)
    except KeyboardInterrupt:
        return 0
    finally:
        for source in sources:
            source.close()


def sidecars_here(environ: Mapping[str, str], beside: Path = DEFAULT_DIR) -> list[str]:
    """Directories of sidecars on this machine: the one in `environ`, or `beside` and those named like it."""
    if environ.get(ENV_DIR):
        return [environ[ENV_DIR]]
    sockets = sorted(beside.parent.glob(f"{beside.name}*/{socket_path(beside).name}"))
    return [str(socket.parent) for socket in sockets] or [str(beside)]


def _once(console: Console, sources: Sequence[SnapshotSource], picture: Path | None) -> int:
    readings = ask_all(sources)
    answered = [reading for reading in readings if reading.snapshot is not None]
    if not answered:
        for reading in readings:
            print(f"trail top: {reading.trouble}", file=sys.stderr)
        return 1
    console.print(_fitting(console, readings))
    if picture is not None:
        try:
            write_text(picture, drawn(readings))
        except OSError as error:
            print(f"trail top: {picture}: {error.strerror}", file=sys.stderr)
            return 1
    return 0


def drawn(readings: Sequence[Reading]) -> str:
    """One frame at its usual size as SVG that fetches nothing: rich's own would load a font from the net."""
    canvas = Console(width=WIDTH, height=HEIGHT, record=True, file=io.StringIO(), force_terminal=True)
    canvas.print(frame(readings))
    return re.sub(r"@font-face\s*{[^}]*}", "", canvas.export_svg(title="trail top"))


def _live(console: Console, sources: Sequence[SnapshotSource], every_s: float) -> int:
    # However it is told to end, the terminal is put back in order; Ctrl-C also where a shell has it ignored.
    before = {s: signal.signal(s, _interrupt) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                began_s = time.monotonic()
                live.update(_fitting(console, ask_all(sources)), refresh=True)
                time.sleep(max(every_s - (time.monotonic() - began_s), 0.05))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fitting(console: Console, readings: Sequence[Reading]) -> RenderableType:
    return frame(readings, console.width, console.height)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
