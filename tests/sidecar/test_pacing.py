"""One table says how often the sidecar does things, and one rule which profile of it holds."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from trail.sidecar import pacing
from trail.sidecar.pacing import CHOICES, OWN_CORES, PROFILES, SHARED_CORES, choose

SIDECAR = Path(pacing.__file__).parent
NO_PACING = {
    "TIMEOUT_S": "a call of Redis",
    "FORGET_S": "memory of an estimate",
    "DEFAULT_INTERVAL_S": "OpenTelemetry's own default of a setting that users give",
}


@pytest.mark.parametrize(
    ("wanted", "own_cores", "chosen"),
    [
        ("auto", 0, SHARED_CORES),
        ("auto", 1, OWN_CORES),
        ("auto", 8, OWN_CORES),
        ("shared-cores", 8, SHARED_CORES),
        ("own-cores", 0, OWN_CORES),
    ],
)
def test_the_profile_goes_by_what_is_asked_for_and_then_by_cores(
    wanted: str, own_cores: int, chosen: object
) -> None:
    assert choose(wanted, own_cores) is chosen


def test_profiles_are_chosen_by_their_names() -> None:
    assert CHOICES == ("auto", "shared-cores", "own-cores")
    assert [choose(name, 0).name for name in PROFILES] == list(PROFILES)


def test_own_cores_rest_for_less_than_a_step_of_10_ms() -> None:
    pauses = (OWN_CORES.loop_rest_most_s, OWN_CORES.loop_rest_crowded_most_s, OWN_CORES.loop_rest_unhurried_s)
    assert max(*pauses, OWN_CORES.loop_look_most_s) < 10e-3


def times(tree: ast.Module) -> Iterator[str]:
    """Constants of a module that are a number of seconds or nanoseconds, by their names."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield from (
                target.id
                for target in node.targets
                if isinstance(target, ast.Name) and target.id.endswith(("_S", "_NS", "_MS"))
            )


def test_no_module_keeps_a_time_of_its_own() -> None:
    """But for the supervisor's, which runs around the sidecar."""
    files = [path for path in SIDECAR.rglob("*.py") if path.parent != SIDECAR / "process"]
    assert len(files) > 40
    found = {name for path in files for name in times(ast.parse(path.read_text()))}
    assert found == set(NO_PACING)
