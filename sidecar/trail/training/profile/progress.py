"""How far a recording is: a bar on a terminal, plain lines elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trail.training.profile.estimate import size_text
from trail.training.recording.settings import ShardPlan


class Display:
    """Progress over the requests of a recording of `shards` shards. A context manager."""

    def __init__(self, console: Console, *, requests: int, done: int, shards: int) -> None:
        self._console = console
        self._requests = requests
        self._done = done
        self._shards = shards
        self._tokens = 0
        self._began_s = time.monotonic()
        self._before = done
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("requests, left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(
            *columns,
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=2,  # drawing must not compete with the engine
            speed_estimate_period=300,
        )
        self._task = self._bar.add_task("recording", total=requests, completed=done)

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def request_done(self, tokens: int) -> None:
        """A request was answered with so many tokens."""
        self._done += 1
        self._tokens += tokens
        speed = self._tokens / max(time.monotonic() - self._began_s, 1e-3)
        self._bar.update(self._task, advance=1, description=f"recording, {speed:.0f} tokens/s")

    def shard_done(self, plan: ShardPlan, size_bytes: int) -> None:
        """A shard is in place."""
        if self._console.is_terminal:
            return
        spent_s = time.monotonic() - self._began_s
        left_s = spent_s / max(self._done - self._before, 1) * (self._requests - self._done)
        self.say(
            f"{plan.name} of {self._shards}: {self._done} of {self._requests} requests,"
            f" {size_text(size_bytes)}, about {_time_text(left_s)} left"
        )


def _time_text(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
