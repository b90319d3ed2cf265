"""What the operator and the loop on c cost at size, with the kits of the tests as their other ends."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("e2e", "operator/control")]
