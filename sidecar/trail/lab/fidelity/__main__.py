"""`python -m trail.lab.fidelity`."""

import sys

from trail.lab.fidelity.command import main

if __name__ == "__main__":
    sys.exit(main())
