"""Files that appear whole or not at all. Standard library only."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Writes through a temporary file beside it. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
