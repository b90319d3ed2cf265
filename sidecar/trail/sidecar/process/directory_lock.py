"""One sidecar a directory."""

import fcntl
import os
from pathlib import Path


class SidecarError(Exception):
    """The sidecar cannot start; the message says why and what to do."""


class DirectoryLock:
    """Holds the shared directory for this process. The kernel lets go of it however the process ends."""

    def __init__(self, directory: Path) -> None:
        """Makes the directory where it is missing. Raises SidecarError when another sidecar holds it."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SidecarError(f"cannot use {directory}: {error.strerror}; give a writable --dir") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise SidecarError(
                f"another sidecar already serves {directory}; stop it first, or give this one its own --dir"
            ) from None

    def release(self) -> None:
        """Lets another sidecar in."""
        os.close(self._descriptor)
