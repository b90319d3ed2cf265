"""SIGTERM and SIGINT as something to wait for."""

import os
import select
import signal
from types import FrameType


class StopSignals:
    """SIGTERM and SIGINT as something to wait for, in the main thread.

    The interpreter writes a byte to a pipe when one comes, and the wait is one for the pipe. A handler that
    sets a `threading.Event` may interrupt the very wait that holds the event's lock, and then waits for it
    for ever; `signal.sigtimedwait` takes a process that was stopped and continued for one that got a signal.
    """

    def __init__(self) -> None:
        self._came = False
        self._pipe, written = os.pipe()
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _noted)

    def is_set(self) -> bool:
        """Whether one has been taken up."""
        return self._came

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for one; whether one has come."""
        if not self._came:
            self._came = bool(select.select([self._pipe], [], [], timeout)[0])
        return self._came


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Only signals with a handler are written to the pipe."""
