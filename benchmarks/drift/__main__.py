"""`python -m benchmarks.drift`."""

import sys

from benchmarks.drift.command import main

if __name__ == "__main__":
    sys.exit(main())
