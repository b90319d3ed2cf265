"""Metrics are made by the sidecar and read by the charts: the kits of both sides' tests are used here."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("service", "charts")]
