"""A real Redis for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loop_kit import RedisServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    directory = tmp_path / "redis"
    directory.mkdir()
    server = RedisServer(directory)
    yield server
    server.resume()
    server.kill()
