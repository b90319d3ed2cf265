"""`python -m trail_operator`."""

import sys

from trail_operator.command import main

if __name__ == "__main__":
    sys.exit(main())
