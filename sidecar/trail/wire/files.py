"""Files that appear whole or not at all. Standard library only."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Writes through a temporary file beside it. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes one line of JSON in the same way. Raises OSError, and ValueError for a NaN or an infinity."""
    write_text(path, json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n")
