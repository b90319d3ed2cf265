"""vLLM's free KV blocks: taken from the oldest on, with what a preempted request left still in them."""

from collections import deque


class _Cached:
    """Blocks of one preempted request in the queue, the last of its context first, after a gap of others."""

    __slots__ = ("blocks", "gap", "owner")

    def __init__(self, gap: int, owner: int, blocks: int) -> None:
        self.gap, self.owner, self.blocks = gap, owner, blocks


class FreeBlocks:
    """The free list of vLLM's BlockPool (vllm/v1/core/block_pool.py), without the blocks themselves.

    Blocks are taken from the front. Those that hold a full block's keys and values go to the end when they
    are freed, the last of a context first, so that what is left of a context is always its beginning; a
    partly filled one goes to the front. Whatever nobody can use again is a mere count. O(1) but for
    blocks that pass owners.
    """

    def __init__(self, blocks: int, *, keep: bool) -> None:
        self.free = blocks
        """Free blocks, with whatever they still hold."""
        self._keep = keep
        self._queue: deque[_Cached] = deque()
        self._by_owner: dict[int, _Cached] = {}
        self._last = blocks
        """Blocks of no one after the last of the queue."""

    def take(self, blocks: int) -> None:
        """Allocate `blocks` of the oldest; there must be as many."""
        self.free -= blocks
        queue = self._queue
        while blocks and queue:
            head = queue[0]
            if head.gap >= blocks:
                head.gap -= blocks
                return
            blocks -= head.gap
            head.gap = 0
            lost = min(blocks, head.blocks)
            head.blocks -= lost
            blocks -= lost
            if not head.blocks:
                queue.popleft()
                self._by_owner.pop(head.owner, None)
        self._last -= blocks

    def release(self, full: int, partial: int, owner: int = -1) -> None:
        """Free `full` blocks and `partial` ones; the former stay for a preempted `owner` (-1: nobody)."""
        self.free += full + partial
        queue = self._queue
        if not self._keep:
            return
        if queue:
            queue[0].gap += partial
        else:
            self._last += partial
        if owner < 0 or not full:
            self._last += full
            return
        cached = _Cached(self._last, owner, full)
        self._last = 0
        queue.append(cached)
        self._by_owner[owner] = cached

    def cached(self, owner: int) -> int:
        """How many blocks, from the beginning of its context, are still there for `owner`."""
        found = self._by_owner.get(owner)
        return found.blocks if found is not None else 0

    def take_back(self, owner: int) -> int:
        """Allocate to `owner` the blocks still there for it; their number."""
        found = self._by_owner.pop(owner, None)
        if found is None:
            return 0
        blocks, found.blocks, found.owner = found.blocks, 0, -1
        self.free -= blocks
        return blocks
