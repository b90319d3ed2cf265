"""Metrics are made by the sidecar and read by the charts: the kits of both sides' tests are used here."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("service", "charts")]

from metrics_kit import Served, play  # noqa: E402 - it stands on the service's kit


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    play(served)
    yield served
    served.close()
