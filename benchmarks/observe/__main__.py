"""`python -m benchmarks.observe`."""

import sys

from benchmarks.observe.command import main

if __name__ == "__main__":
    sys.exit(main())
