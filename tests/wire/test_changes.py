"""The numbers of changes and causes are those of the contract, in both directions."""

import enum

import pytest

from trail.sidecar.requests.timeline import Passage, State
from trail.wire.changes import Cause, Change
from trail.wire.v1 import trail_pb2


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (Change, trail_pb2.Change, "CHANGE_"),
        (Cause, trail_pb2.Cause, "CAUSE_"),
        (State, trail_pb2.RequestState, "REQUEST_STATE_"),
    ],
)
def test_numbers_are_the_contracts(ours: type[enum.IntEnum], theirs: object, prefix: str) -> None:
    stated = {name.removeprefix(prefix): number for name, number in theirs.items()}  # type: ignore[attr-defined]
    assert stated.pop("UNSPECIFIED") == 0
    assert {item.name: int(item) for item in ours if item.name != "NONE"} == stated


def test_a_passage_has_the_contracts_fields() -> None:
    assert list(Passage._fields) == [field.name for field in trail_pb2.Passage.DESCRIPTOR.fields]
