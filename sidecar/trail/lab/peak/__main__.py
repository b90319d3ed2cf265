"""`python -m trail.lab.peak`."""

import sys

from trail.lab.peak.command import main

if __name__ == "__main__":
    sys.exit(main())
