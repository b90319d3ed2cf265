"""Rows of requests that are not known yet: shared memory is faster than the lifecycle stream."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trail.wire.frames import ROW_DTYPE

HOLD_ROWS = 1024
"""How many rows wait at most; the oldest give way."""


@dataclass(frozen=True)
class Rows:
    """Exported hidden states: `rows` of ROW_DTYPE [n] and float32 `vectors` [n, hidden]."""

    rows: npt.NDArray[np.void]
    vectors: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Rows":
        """The chosen rows, copied."""
        return Rows(self.rows[chosen], self.vectors[chosen])

    @classmethod
    def joined(cls, parts: "list[Rows]") -> "Rows":
        """All parts, one after another."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.rows for part in parts]), np.concatenate([part.vectors for part in parts])
        )

    @classmethod
    def none(cls, hidden_size: int) -> "Rows":
        """No row at all."""
        return cls(np.empty(0, dtype=ROW_DTYPE), np.empty((0, hidden_size), dtype=np.float32))


@dataclass
class PendingRows:
    """Bounded waiting room for rows without a request; `dropped` counts rows nobody claimed.

    Each waits for `hold_ns` at most.
    """

    hold_ns: int
    dropped: int = 0
    _held: list[tuple[int, Rows]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self._held)

    def hold(self, rows: Rows, now_ns: int) -> None:
        """Keeps `rows` until claimed, HOLD_ROWS of them at most."""
        if len(rows):
            self._held.append((now_ns, rows))
        self.expire(now_ns)
        while len(self) > HOLD_ROWS:
            self.dropped += len(self._held.pop(0)[1])

    def expire(self, now_ns: int) -> None:
        """Gives up rows that have waited too long."""
        while self._held and now_ns - self._held[0][0] > self.hold_ns:
            self.dropped += len(self._held.pop(0)[1])

    def claim(self, keys: set[int]) -> list[Rows]:
        """Takes out the rows of the requests `keys`, oldest first."""
        claimed: list[Rows] = []
        kept: list[tuple[int, Rows]] = []
        for since_ns, rows in self._held:
            wanted = np.array([int(key) in keys for key in rows.rows["key"]], dtype=np.bool_)
            if wanted.any():
                claimed.append(rows.take(wanted))
                rows = rows.take(~wanted)  # noqa: PLW2901 - what is left of this batch
            if len(rows):
                kept.append((since_ns, rows))
        self._held = kept
        return claimed
