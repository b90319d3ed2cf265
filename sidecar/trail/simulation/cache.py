"""Results kept under names made of all that they depend on: what was interrupted goes on where it stopped.

The code is part of a name: every module of this project that the run imports, found from the modules
themselves. A result of other code, or of other inputs, is never taken for one of these.
"""

import ast
import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from trail.wire.files import write_json


class Cache:
    """Results in `directory` of what begins in `modules` (names; of each process the first of ours)."""

    def __init__(self, directory: Path, *modules: str) -> None:
        """Makes the directory. Raises OSError, and ValueError for a module without a source."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._code = code_digest(*modules)

    def key(self, *inputs: object) -> str:
        """Of a result's inputs: values, arrays, dataclasses of such; of a file or a directory the content.

        Raises OSError for a file that is not there.
        """
        digest = hashlib.sha256(self._code.encode())
        _add(digest, inputs)
        return digest.hexdigest()[:24]

    def read(self, key: str) -> dict[str, Any] | None:
        """The result; None where there is none, or a damaged one."""
        try:
            found = json.loads(self._file(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, key: str, result: Mapping[str, Any]) -> None:
        """Keeps a result, whole or not at all. Raises OSError."""
        write_json(self._file(key), result)

    def _file(self, key: str) -> Path:
        return self.directory / f"{key}.json"


@cache
def code_digest(*modules: str) -> str:
    """sha256 (hex) of `sources`; read once, as the code does not change while it runs."""
    digest = hashlib.sha256()
    for name, file in sorted(sources(*modules).items()):
        digest.update(f"{name} {len(content := file.read_bytes())} ".encode() + content)
    return digest.hexdigest()


def sources(*modules: str) -> dict[str, Path]:
    """Files by name of `modules` and of all that they import, at any depth and within functions, too.

    Of `trail` and of their own top-level packages. A string that names a module counts as an import of it:
    what vLLM or a child is told to load. Nothing is imported to find them. Raises ValueError for a module
    without a source.
    """
    own = {"trail", *(module.partition(".")[0] for module in modules)}
    found: dict[str, Path] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        file = None if name in found or name.partition(".")[0] not in own else _file_of(name)
        if file is None:  # known, of another project, or a name within a module
            continue
        found[name] = file
        todo.append(name.rpartition(".")[0])
        package = name if file.name == "__init__.py" else todo[-1]
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                todo += [base, *(f"{base}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                todo += [node.value, node.value.rpartition(".")[0]]
    if missing := [module for module in modules if module not in found]:
        raise ValueError(f"{missing[0]} has no source: name a module of a package")
    return found


def _file_of(name: str) -> Path | None:
    top, *below = name.split(".")
    spec = importlib.util.find_spec(top)
    for root in (spec and spec.submodule_search_locations) or ():
        path = Path(root, *below)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
    return None


def _add(digest: "hashlib._Hash", value: object) -> None:
    """One value, with its type and where it ends."""
    digest.update(f"{type(value).__name__}(".encode())
    if isinstance(value, Path):
        for file in sorted(value.rglob("*")) if value.is_dir() else [value]:
            if not file.is_dir():
                digest.update(f"{file.name} ".encode() + hashlib.sha256(file.read_bytes()).digest())
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.str}{value.shape}".encode() + value.tobytes())
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            digest.update(field.name.encode())
            _add(digest, getattr(value, field.name))
    elif isinstance(value, Mapping):
        _add(digest, list(value.items()))
    elif isinstance(value, list | tuple):
        for item in value:
            _add(digest, item)
    else:
        digest.update(repr(value).encode())
    digest.update(b")")
