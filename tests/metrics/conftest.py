"""Metrics are made by sidecar and operator and read by the charts: the tests' kits of both sides are used here."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("service", "charts")]
