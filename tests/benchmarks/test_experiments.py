"""`python -m benchmarks` lists every experiment with a command that there is."""

import importlib.util
import re
from pathlib import Path

import pytest

from benchmarks.__main__ import README, experiments, main

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text()


def test_every_experiment_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    told = capsys.readouterr().out
    for one in experiments():
        assert f"    {one.command}\n" in told
        if found := re.search(r"-m (benchmarks[\w.]*)", one.command):
            spec = importlib.util.find_spec(found[1])
            assert spec is not None, one
            assert spec.submodule_search_locations is None or importlib.util.find_spec(f"{found[1]}.__main__")
        elif found := re.match(r"make ([\w-]+)", one.command):
            assert f"\n{found[1]}: " in MAKEFILE
        else:
            assert re.match(r"trail bench|TRAIL_SHARED", one.command), one


def test_every_folder_with_a_command_is_listed() -> None:
    listed = {one.name.split(".")[0] for one in experiments()}
    folders = {path.parent.name for path in README.parent.glob("*/__main__.py")}
    assert folders <= listed
