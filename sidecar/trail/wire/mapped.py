"""Memory-mapped files that one process creates and another attaches to by name."""

import contextlib
import errno
import mmap
import os
import stat
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trail.wire.errors import LayoutError, WireError

LAYOUT_VERSION = 4
"""Layout of the frame ring and the board. Any change of a byte in either raises it."""
FILE_MODE = 0o660
"""Engine and sidecar may run as different users of one group."""
_MAGIC_AND_VERSION = struct.Struct("<8sI")
_CHECKSUM = struct.Struct("<I")


@dataclass
class MappedFile:
    """A mapping with its bytes (`data`) and its aligned 8-byte words (`words`).

    Storing or loading one element of `words` is one machine instruction. Every reader copies out, so that
    `close` finds no view in use.
    """

    path: Path
    inode: int
    map: mmap.mmap
    data: memoryview
    words: memoryview
    closed: bool = False

    @classmethod
    def over(cls, path: Path, inode: int, mapping: mmap.mmap) -> "MappedFile":
        data = memoryview(mapping)
        return cls(path, inode, mapping, data, data.cast("Q"))

    def close(self, *, unlink: bool = False) -> None:
        """Unmap, and with `unlink` remove the name unless another process has put its own file there."""
        if self.closed:
            return
        if unlink:
            with contextlib.suppress(OSError):
                if self.path.stat().st_ino == self.inode:
                    self.path.unlink()
        self.closed = True
        # A view that somebody still holds keeps the mapping until it is collected: better than a crash.
        with contextlib.suppress(BufferError):
            self.words.release()
            self.data.release()
            self.map.close()


def create_file(path: Path, size: int, fill: Callable[[memoryview], None]) -> MappedFile:
    """Create `path` with `size` bytes, write its header with `fill`, and put it in place by rename.

    Raises WireError when the file cannot be made (no directory, no permission, no room).
    """
    # One fixed name: what a killed owner left half-made is replaced and does not pile up in memory.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise WireError(
            f"cannot create {path}: {error.strerror}; the shared directory must exist and be writable"
        ) from error
    mapped: MappedFile | None = None
    try:
        os.fchmod(descriptor, FILE_MODE)  # the umask may have taken the group's bits
        # A sparse file on a full memory volume ends in SIGBUS at the first store, possibly the engine's.
        # Allocating everything here turns that into an error of the sidecar at start-up.
        os.posix_fallocate(descriptor, 0, size)
        mapped = MappedFile.over(path, os.fstat(descriptor).st_ino, mmap.mmap(descriptor, size))
        fill(mapped.data)
        temporary.rename(path)
    except OSError as error:
        if mapped is not None:
            mapped.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
        hint = (
            "give the memory-backed volume more room"
            if error.errno == errno.ENOSPC
            else "check the directory"
        )
        raise WireError(f"cannot create {path} with {size} bytes: {error.strerror}; {hint}") from error
    finally:
        os.close(descriptor)
    return mapped


def attach_file(path: Path, what: str, header_bytes: int) -> MappedFile:
    """Map an existing file of at least `header_bytes` for reading and writing.

    Raises FileNotFoundError without a file, LayoutError when it cannot be a `what`, WireError without access.

    The size is taken by `fstat` from the descriptor that is mapped. A file truncated after that would raise
    SIGBUS on access; no check can close that window, but no owner truncates: files are replaced by rename and
    a mapping keeps its own inode.
    """
    try:
        # Non-blocking: a named pipe in the file's place must not stop the engine.
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except IsADirectoryError as error:
        raise LayoutError(
            f"{path} is a directory, not a {what}; remove it and restart the sidecar"
        ) from error
    except OSError as error:
        raise WireError(
            f"cannot open {path}: {error.strerror}; "
            "vLLM needs read and write access (a group shared with the sidecar)"
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LayoutError(
                f"{path} is not a regular file, so not a {what}; remove it and restart the sidecar"
            )
        # Whole words, for the cast; the length itself is checked against the header by the caller.
        if status.st_size < header_bytes or status.st_size % 8:
            raise LayoutError(
                f"{path} has {status.st_size} bytes, no {what} has that size: truncated or foreign; "
                "restart the sidecar to make it again"
            )
        try:
            return MappedFile.over(path, status.st_ino, mmap.mmap(descriptor, status.st_size))
        except (OSError, ValueError) as error:
            raise WireError(f"cannot map {path}: {error}; check the memory limit") from error
    finally:
        os.close(descriptor)


def seal_identity(data: memoryview, size: int) -> None:
    """Write the checksum of a header's first `size` bytes behind them."""
    _CHECKSUM.pack_into(data, size, zlib.crc32(data[:size]))


def check_identity(mapped: MappedFile, what: str, magic: bytes, size: int) -> None:
    """Raise LayoutError unless magic, layout version and checksum of the header are this build's.

    `size` is that of the sealed part; magic (8 bytes) and version (4 bytes) come first in every layout.
    """
    found_magic, found_version = _MAGIC_AND_VERSION.unpack_from(mapped.data)
    if found_magic != magic:
        raise LayoutError(
            f"{mapped.path} is not a {what}: it starts with {found_magic!r}, expected {magic!r}; "
            "remove the file or give TRAIL a directory of its own, and restart the sidecar"
        )
    if found_version != LAYOUT_VERSION:
        raise LayoutError(
            f"{mapped.path}: the sidecar writes layout version {found_version}, vLLM's TRAIL reads "
            f"{LAYOUT_VERSION}; install the same TRAIL release on both sides"
        )
    if _CHECKSUM.unpack_from(mapped.data, size) != (zlib.crc32(mapped.data[:size]),):
        raise LayoutError(f"{mapped.path}: the header is damaged; restart the sidecar to make it again")


def heartbeat_within(heartbeat_ns: int, limit_ns: int) -> bool:
    """Whether a heartbeat is at most `limit_ns` old; 0 is none, and one from the future is damage."""
    return heartbeat_ns != 0 and 0 <= time.monotonic_ns() - heartbeat_ns <= limit_ns
