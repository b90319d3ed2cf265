"""`python -m benchmarks.overhead`."""

import sys

from benchmarks.overhead.measure import main

if __name__ == "__main__":
    sys.exit(main())
