"""`python -m trail`."""

import sys

from trail.cli import main

if __name__ == "__main__":
    sys.exit(main())
