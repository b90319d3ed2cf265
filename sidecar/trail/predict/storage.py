"""Putting a whole directory in place at once."""

import contextlib
import ctypes
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def replacing_directory(target: Path) -> Iterator[Path]:
    """Yield an empty directory beside `target` that takes its place when the block ends.

    When the block raises or the process dies inside it, `target` is as it was. On Linux an existing
    directory is exchanged in one system call; where the file system cannot do that, two renames are
    made, and the first is undone if the second fails.
    """
    target = target.resolve()  # through a link, the directory behind it is replaced
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield made
        # mkdtemp's 0700 and safetensors' 0600 would hide the artefact from a sidecar of another user.
        made.chmod(0o755)
        for inner in made.rglob("*"):
            inner.chmod(0o755 if inner.is_dir() else 0o644)
        _sync(made)
        if target.exists():
            _exchange(made, target)
        else:
            made.rename(target)
    finally:
        # After an exchange the former content lies here.
        shutil.rmtree(made, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _exchange(made: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    if rename is not None:
        names = os.fsencode(made), os.fsencode(target)
        if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
    former = made.with_name(made.name + ".former")
    target.rename(former)
    try:
        made.rename(target)
    except OSError:
        former.rename(target)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _sync(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
