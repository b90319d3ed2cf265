"""`python -m benchmarks.peak`."""

import sys

from benchmarks.peak.command import main

if __name__ == "__main__":
    sys.exit(main())
