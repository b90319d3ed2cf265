"""Models shared by the tests of the engine side."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import models
import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds a tiny random-weight model by kind, once a session; returns its directory."""
    built: dict[str, Path] = {}

    def build(kind: str) -> Path:
        if kind not in built:
            built[kind] = models.build(kind, tmp_path_factory.mktemp(kind))
        return built[kind]

    return build


@pytest.fixture
def trail_log() -> Iterator[list[str]]:
    """TRAIL's log lines, whatever vLLM has made of its loggers."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("vllm.trail"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)
