"""What operator, loop on c and scheduling step cost at size, with the kits of the tests as other ends."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("e2e", "engine/order", "operator/control")]
