"""What an engine asks of the order in which it serves."""

from dataclasses import dataclass
from typing import Protocol

NOBODY = -1
ENDLESS = 2**62


@dataclass(frozen=True)
class Quiet:
    """For how long an order need not be asked, while nobody ends, starts or loses memory.

    `steps` at most; until the clock shows `until`; while at least `spare_blocks` blocks are free. `arrivals`
    says whether a new request ends it.
    """

    steps: int = ENDLESS
    until: int | None = None
    spare_blocks: int = 0
    arrivals: bool = True


class Order(Protocol):
    """Who waits, in serving order, and what changes before a step."""

    limit: int
    """Requests that may run in this step; set by `before`."""

    def __len__(self) -> int: ...

    def arrive(self, begin: int, end: int) -> None:
        """Requests `begin` to `end` (exclusive) have come."""

    def before(self) -> None:
        """Before a step is put together."""

    def first(self) -> int:
        """The waiting request to be started next, or NOBODY."""

    def pop(self) -> None:
        """The first one starts."""

    def lost(self, request: int) -> None:
        """A running request lost its memory and waits again."""

    def restore(self) -> None:
        """After a step was put together."""

    def quiet(self) -> Quiet:
        """For how long nothing in `before` would change the steps to come."""
