"""`python -m trail.lab.drift`."""

import sys

from trail.lab.drift.command import main

if __name__ == "__main__":
    sys.exit(main())
