"""A sidecar's metrics, as an invented engine fills them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from metrics_kit import Served, play


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    play(served)
    yield served
    served.close()
