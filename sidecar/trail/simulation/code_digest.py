"""What names a cached result must hold, so that a result of other code is never taken for one of this."""

import hashlib
from functools import cache
from pathlib import Path


@cache
def code_digest(*paths: Path) -> str:
    """sha256 (hex) of the content of files, and of the modules of packages, one after another.

    Read once a process: the code that runs does not change while it runs.
    """
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.glob("*.py")) if path.is_dir() else (path,):
            digest.update(file.read_bytes())
    return digest.hexdigest()
