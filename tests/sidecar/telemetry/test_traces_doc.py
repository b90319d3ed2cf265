"""docs/traces.md names the attributes, events and causes that there are, and no others."""

import re
from pathlib import Path

from test_tracing import lived

from trail.sidecar.requests.timeline import Moment
from trail.sidecar.telemetry.spans import _BOUNDS, _KEPT, event, summary
from trail.wire.changes import Cause, Change

PAGE = (Path(__file__).parents[3] / "docs" / "traces.md").read_text()
DENIALS = (Cause.PROTECTED, Cause.LIMIT, Cause.RATIO, Cause.MEMORY, Cause.BUSY, Cause.ADAPTER)


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_.]+)`", text))


def test_attributes_are_those_of_a_span() -> None:
    part = PAGE[PAGE.index("### Attributes of the span") : PAGE.index("### When")]
    named = {word for word in quoted(part) if "." in word}
    assert named == {*summary(lived()), _KEPT}


def test_events_and_their_attributes_are_those_that_are_sent() -> None:
    (part,) = (p for p in PAGE.split("\n\n") if p.startswith("State changes are log records"))
    words = quoted(part)
    events = {word.rpartition(".")[2] for word in words if word.startswith((".", "trail.request."))}
    assert events == {change.name.lower() for change in Change if change not in _BOUNDS}
    whole = Moment(1, Change.DENIED, 2, Cause.RATIO, "other", 1.0, 2.0, 3)
    assert {w for w in words if w.startswith("trail.") and not w.startswith("trail.request.")} == set(
        event(whole)
    )


def test_every_reason_of_a_denial_is_explained() -> None:
    table = PAGE[PAGE.index("| refused another's place") : PAGE.index("## All requests")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [cause.label for cause in DENIALS]
