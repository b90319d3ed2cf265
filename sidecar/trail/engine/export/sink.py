"""The writing end of the frame ring, attached by name and attached again when the sidecar restarts."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trail.engine.log import logger
from trail.engine.start.config import ATTACH_INTERVAL_NS
from trail.wire.errors import WireError
from trail.wire.frames import FrameWriter
from trail.wire.log_lines import OnChange


class Sink:
    """Holds the ring's writer while the sidecar reads, and looks for the sidecar while it does not.

    `interval_ns` is the time between the sidecar's looks at the ring, as it last stated it.

    Used by one thread. One log line per change of state. Never raises on what the sidecar does.
    """

    def __init__(
        self, path: Path, *, hidden_size: int, dtype: str, layers: Sequence[int], heartbeat_ns: int
    ) -> None:
        self.path = path
        self.interval_ns = 0
        self._hidden_size = hidden_size
        self._dtype = dtype
        self._layers = tuple(layers)
        self._heartbeat_ns = heartbeat_ns
        self._writer: FrameWriter | None = None
        self._next_attach_ns = 0
        self._say = OnChange(logger, logging.INFO)

    @property
    def active(self) -> bool:
        """Whether somebody reads."""
        return self._writer is not None

    @property
    def lossless(self) -> bool:
        """Whether the reader asked that nothing be dropped."""
        writer = self._writer
        return writer is not None and writer.spec.lossless

    def tend(self, now_ns: int) -> bool:
        """Beat, let go of a silent sidecar, look for one at intervals. Returns `active`."""
        if self._writer is not None:
            if self._writer.reader_alive(self._heartbeat_ns):
                self._writer.beat()
                self.interval_ns = self._writer.reader_interval_ns()
                return True
            self.close()
            limit_ms = self._heartbeat_ns / 1e6
            self._say(f"TRAIL: the sidecar is silent for more than {limit_ms:g} ms; export pauses")
        if now_ns >= self._next_attach_ns:
            self._next_attach_ns = now_ns + ATTACH_INTERVAL_NS
            self._attach()
        return self._writer is not None

    def write(self, step: int, rows: npt.NDArray[np.void], vectors: npt.NDArray[np.generic]) -> None:
        """Write one step's rows and vectors [m, hidden]; nothing happens while nobody reads."""
        if self._writer is not None:
            self._writer.write(step, rows, vectors)

    def close(self) -> None:
        """Let go of the ring."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _attach(self) -> None:
        try:
            writer = FrameWriter.attach(
                self.path, hidden_size=self._hidden_size, dtype=self._dtype, layers=self._layers
            )
        except FileNotFoundError:
            self._say(f"TRAIL: no sidecar yet: {self.path} does not exist; export waits for it")
            return
        except (WireError, OSError) as error:
            self._say(f"TRAIL: export waits for another sidecar: {error}")
            return
        if not writer.reader_alive(self._heartbeat_ns):
            # A file left behind by a sidecar that died.
            writer.close()
            self._say(f"TRAIL: {self.path} belongs to a silent sidecar; export waits for one that answers")
            return
        self._writer = writer
        layers = ", ".join(map(str, self._layers))
        self._say(f"TRAIL: exporting hidden_states[{layers}] to {self.path}")
