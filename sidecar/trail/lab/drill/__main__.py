"""`python -m trail.lab.drill`."""

import sys

from trail.lab.drill.command import main

if __name__ == "__main__":
    sys.exit(main())
