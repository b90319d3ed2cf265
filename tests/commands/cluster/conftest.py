"""Commands as the command line calls them, on a clock that is moved by hand."""

import argparse
import importlib

import pytest
from cluster_kit import StepClock, Trail, api

__all__ = ["api"]


@pytest.fixture
def trail() -> Trail:
    """`trail NAME ...` as the command line has it; the exit code."""

    def call(name: str, *words: str) -> int:
        module = importlib.import_module(f"trail.commands.cluster.{name.replace('-', '_')}")
        parser = argparse.ArgumentParser(prog=f"trail {name}", allow_abbrev=False)
        module.configure(parser)
        return int(module.run(parser.parse_args(words)))

    return call


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StepClock:
    """What waits takes its time from here."""
    clock = StepClock()
    monkeypatch.setattr("trail.commands.cluster.wait.CLOCK", clock)
    return clock
