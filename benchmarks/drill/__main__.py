"""`python -m benchmarks.drill`."""

import sys

from benchmarks.drill.command import main

if __name__ == "__main__":
    sys.exit(main())
