"""All requests that get one token with every step, as sums: what they cost, take and when they end."""

import heapq
from collections.abc import Iterator


class Decoding:
    """Requests that get older together. Steps are counted by the engine's clock.

    Of a request only its *base*, the clock less its age, has to be remembered: it stays as it is. O(log n) to
    come and go, O(1) a step.
    """

    def __init__(self, block_tokens: int) -> None:
        self.count = 0
        self.context = 0
        """Tokens of theirs whose keys and values are in the cache."""
        self._phases = [0] * block_tokens
        self._ends: list[tuple[int, int]] = []
        self._end_of: dict[int, int] = {}

    def add(self, request: int, base: int, clock: int, prompt: int, output: int) -> None:
        """One whose known tokens but the newest are in the cache."""
        self.count += 1
        self.context += prompt + clock - base - 1
        self._phases[(prompt - 1 - base) % len(self._phases)] += 1
        end = base + output
        self._end_of[request] = end
        heapq.heappush(self._ends, (end, request))

    def remove(self, request: int, base: int, clock: int, prompt: int) -> None:
        """One that ends, gives way, or gets no token in this step."""
        self.count -= 1
        self.context -= prompt + clock - base - 1
        self._phases[(prompt - 1 - base) % len(self._phases)] -= 1
        del self._end_of[request]

    def new_blocks(self, clock: int, steps: int) -> int:
        """KV blocks that they begin in the next `steps` steps."""
        rounds, rest = divmod(steps, len(self._phases))
        phases = self._phases
        if rest == 1:
            return rounds * self.count + phases[-clock % len(phases)]
        return rounds * self.count + sum(phases[-(clock + i) % len(phases)] for i in range(rest))

    def steps_within(self, clock: int, blocks: int) -> int:
        """The most steps for which `blocks` blocks are enough."""
        size = len(self._phases)
        rounds, left = divmod(blocks, self.count)
        steps = rounds * size
        for i in range(size):
            left -= self._phases[-(clock + i) % size]
            if left < 0:
                break
            steps += 1
        return steps

    def next_end(self) -> int:
        """The clock when the next of them ends. There must be one."""
        while self._end_of.get(self._ends[0][1]) != self._ends[0][0]:
            heapq.heappop(self._ends)
        return self._ends[0][0]

    def ending(self, clock: int) -> Iterator[int]:
        """Those that have ended by `clock`; the caller removes each."""
        while self._ends and self._ends[0][0] <= clock:
            end, request = heapq.heappop(self._ends)
            if self._end_of.get(request) == end:
                yield request
