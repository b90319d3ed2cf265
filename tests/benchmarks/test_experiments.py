"""`python -m benchmarks` names commands that there are."""

import importlib.util

import pytest

from benchmarks.__main__ import EXPERIMENTS, main


def test_every_experiment_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    told = capsys.readouterr().out
    for command, question, _ in EXPERIMENTS:
        assert f"{question}\n    python -m benchmarks.{command}" in told
        module = f"benchmarks.{command.split()[0]}"
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        assert spec.submodule_search_locations is None or importlib.util.find_spec(f"{module}.__main__")
