"""The environment, parsed: off unless asked, and off with a sentence when a value cannot be used."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from trail.engine.start.config import EngineConfig, engine_index
from trail.wire import names

ON = {"TRAIL_ENABLED": "1"}


@pytest.mark.parametrize(
    "environ", [{}, {"TRAIL_ENABLED": "0"}, {"TRAIL_ENABLED": "true", "TRAIL_LAYERS": "x"}]
)
def test_off_unless_asked(environ: dict[str, str]) -> None:
    config = EngineConfig.from_environ(environ)
    assert not config.enabled
    assert not config.problem


def test_all_values() -> None:
    config = EngineConfig.from_environ(
        {
            **ON,
            "TRAIL_DIR": "/trail",
            "TRAIL_LAYERS": "7, 3,3",
            "TRAIL_EXPORT_EVERY": "4",
            "TRAIL_HEARTBEAT_MS": "250.5",
            "TRAIL_STATS": "1",
        }
    )
    assert config == EngineConfig(True, Path("/trail"), (3, 7), 4, 250_500_000, True)


def test_defaults() -> None:
    config = EngineConfig.from_environ(ON)
    assert config == EngineConfig(True, names.DEFAULT_DIR, (), 1, 100_000_000, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRAIL_DIR", "relative/path"),
        ("TRAIL_LAYERS", "eleven"),
        ("TRAIL_LAYERS", "-1"),
        ("TRAIL_LAYERS", "70000"),
        ("TRAIL_EXPORT_EVERY", "0"),
        ("TRAIL_EXPORT_EVERY", "1.5"),
        ("TRAIL_HEARTBEAT_MS", "soon"),
        ("TRAIL_HEARTBEAT_MS", "nan"),
        ("TRAIL_HEARTBEAT_MS", "0"),
    ],
)
def test_an_unusable_value_is_named_and_switches_off(name: str, value: str) -> None:
    config = EngineConfig.from_environ({**ON, name: value})
    assert not config.enabled
    assert f"{name}={value!r}" in config.problem


def test_replicas_of_a_dense_model_are_told_apart_by_their_index() -> None:
    """vLLM resets `data_parallel_rank` to 0 for them."""
    assert engine_index(SimpleNamespace(data_parallel_rank=0, data_parallel_index=3)) == 3
