"""`python -m trail.lab.overhead`."""

import sys

from trail.lab.overhead.measure import main

if __name__ == "__main__":
    sys.exit(main())
