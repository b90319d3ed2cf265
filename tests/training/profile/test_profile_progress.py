"""Progress is a bar with the time left on a terminal, and lines elsewhere."""

import io

from rich.console import Console

from trail.training.profile.progress import Display
from trail.training.recording.settings import ShardPlan


def shown(*, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with Display(console, requests=8, done=2, shards=4) as display:
        display.say("said")
        for _ in range(2):
            display.request_done(10)
        display.shard_done(ShardPlan(1, 2, 2), 1_500_000)
    return out.getvalue()


def test_lines_where_there_is_no_terminal() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[0] == "said"
    assert lines[1].startswith("shard-00001 of 4: 4 of 8 requests, 1.5 MB, about 0 s left")
    assert len(lines) == 2


def test_a_bar_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert "4/8" in text
    assert "tokens/s" in text
    assert "shard-00001" not in text
