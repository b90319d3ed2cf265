"""The engine's view of the sidecar's board: attach by name, notice silence, say so once."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trail.engine.log import logger
from trail.engine.start.config import ATTACH_INTERVAL_NS
from trail.wire.board import BoardReader, BoardSnapshot
from trail.wire.errors import WireError
from trail.wire.log_lines import OnChange


class BoardWatch:
    """Whether a living sidecar's board is at hand, without ever waiting for one.

    A missing or silent board is looked for by name every `ATTACH_INTERVAL_NS`: a restarted sidecar has put
    another file in its place. Each change of state is one log line.
    """

    def __init__(self, path: Path, limit_ns: int) -> None:
        self.path = path
        self._limit_ns = limit_ns
        self._reader: BoardReader | None = None
        self._next_attach_ns = 0
        self._live = False
        self._say = OnChange(logger)

    @property
    def capacity(self) -> int:
        """Rows of the attached board, 0 without one."""
        return self._reader.capacity if self._reader is not None else 0

    @property
    def update(self) -> int:
        """Number that differs after every update of the attached board, 0 without one."""
        return self._reader.update if self._reader is not None else 0

    def check(self, now_ns: int) -> bool:
        """Whether ranks may be read at `now_ns` (CLOCK_MONOTONIC): the heartbeat is within the limit."""
        if self._reader is not None and self._reader.fresh(self._limit_ns):
            if not self._live:
                self._live = True
                self._say(f"TRAIL: the sidecar's board {self.path} is in use", logging.INFO)
            return True
        if self._live:
            self._live = False
            self._next_attach_ns = now_ns + ATTACH_INTERVAL_NS
            self._say(
                f"TRAIL: no heartbeat on {self.path} for {self._limit_ns / 1e6:g} ms; "
                "serving first come, first served until the sidecar is back"
            )
        elif now_ns >= self._next_attach_ns:
            self._next_attach_ns = now_ns + ATTACH_INTERVAL_NS
            self._attach()
            if self._reader is not None and self._reader.fresh(self._limit_ns):
                return self.check(now_ns)
        return False

    def snapshot(self, slots: NDArray[np.int64]) -> BoardSnapshot | None:
        """Rows at `slots` [n] and the header; None when no consistent copy was had.

        A slot beyond the board reads its last row, whose key is another request's.
        """
        reader = self._reader
        if reader is None:
            return None
        return reader.snapshot(np.minimum(slots, reader.capacity - 1))

    def close(self) -> None:
        """Let go of the board."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _attach(self) -> None:
        try:
            reader = BoardReader.attach(self.path)
        except FileNotFoundError:
            self._say(f"TRAIL: no sidecar yet ({self.path} is missing); serving first come, first served")
            return
        except (WireError, OSError) as error:
            self._say(f"TRAIL: {error}; serving first come, first served")
            return
        self.close()
        self._reader = reader
