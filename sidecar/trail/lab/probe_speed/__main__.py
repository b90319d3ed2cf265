"""`python -m trail.lab.probe_speed`."""

import sys

from trail.lab.probe_speed.command import main

if __name__ == "__main__":
    sys.exit(main())
