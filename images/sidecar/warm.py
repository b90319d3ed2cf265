"""Loads what a sidecar loads: every module of the service, and both parts of the packaged demo predictor.

The image's build runs this once, by which a package that is missing fails the build and not a pod, and Python
leaves byte code of what a sidecar imports, a third of what byte code of everything would take.
"""

import importlib
import pkgutil
import sys
from pathlib import Path

import trail
from trail import sidecar as service
from trail.predict import artefact

PREDICTOR = Path(trail.__file__).parent / "demo/data/predictor"


def main() -> int:
    """0, or 1 where the predictor has lost a part. Raises whatever an import raises."""
    for module in pkgutil.walk_packages(service.__path__, f"{service.__name__}."):
        importlib.import_module(module.name)
    loaded = artefact.load(PREDICTOR)
    print(f"loaded {PREDICTOR.name}: probe {loaded.probe is not None}, prompt {loaded.prompt is not None}")
    return 0 if loaded.probe is not None and loaded.prompt is not None else 1


if __name__ == "__main__":
    sys.exit(main())
