"""`python -m trail.lab.observe`."""

import sys

from trail.lab.observe.command import main

if __name__ == "__main__":
    sys.exit(main())
