"""What happens to each request: first token, end, gaps between tokens, preemptions, recomputed tokens."""

from bisect import bisect_left
from dataclasses import dataclass


class LongestStep:
    """Keeps, of all steps so far, those longer than every later one. O(1) a step on average."""

    def __init__(self) -> None:
        self._clock: list[int] = []
        self._ticks: list[int] = []

    def add(self, clock: int, ticks: int) -> None:
        """The step that ended as number `clock` took `ticks`; numbers ascend."""
        while self._ticks and self._ticks[-1] <= ticks:
            self._ticks.pop()
            self._clock.pop()
        self._clock.append(clock)
        self._ticks.append(ticks)

    def since(self, clock: int) -> int:
        """Ticks of the longest step that ended after number `clock`; 0 when there is none."""
        place = bisect_left(self._clock, clock + 1)
        return self._ticks[place] if place < len(self._ticks) else 0


@dataclass
class Counters:
    """What the engine counted."""

    steps: int = 0
    policy_preemptions: int = 0
    memory_preemptions: int = 0
    denied: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    generated_tokens: int = 0
    wasted_tokens: int = 0
    """Computed for requests that had ended (asynchronous scheduling)."""
    most_blocks: int = 0


@dataclass(frozen=True)
class Step:
    """One step, or `steps` alike that were taken together."""

    steps: int
    start: int
    end: int
    decoding: int
    prefill_tokens: int
    running: tuple[int, ...]
    used_blocks: int


class Journal:
    """Columns `[n]` by request, times in ticks; -1 where something has not happened.

    A gap is the time between two tokens of a request: the longest step while it gets one with each, and
    whatever passes while it gets none.
    """

    def __init__(self, requests: int, *, trace: bool = False) -> None:
        n = requests
        self.count = Counters()
        self.first_token = [-1] * n
        self.end = [-1] * n
        self.started = [-1] * n
        """Place among all first starts."""
        self.max_gap = [0] * n
        self.policy_preemptions = [0] * n
        self.memory_preemptions = [0] * n
        self.recomputed = [0] * n
        self.timeline: list[tuple[int, int]] = [(0, 0)]
        """Tokens generated so far, by time."""
        self.steps: list[Step] | None = [] if trace else None
        self._starts = 0
        self._computed_once = [0] * n
        self._last_token = [0] * n
        self._longest = LongestStep()
        self._regular_since: dict[int, int] = {}

    def start(self, request: int) -> None:
        """`request` is started, for the first time or again."""
        if self.started[request] < 0:
            self.started[request] = self._starts
            self._starts += 1

    def step(self, clock: int, last_ticks: int) -> None:
        """A step ended, number `clock`, the last of those taken together; it took `last_ticks`."""
        self._longest.add(clock, last_ticks)

    def compute(self, request: int, begin: int, end: int) -> None:
        """Tokens `begin` to `end` (exclusive) of a prompt, or of what it was when it lost its memory."""
        again = max(min(end, self._computed_once[request]) - begin, 0)
        self.recomputed[request] += again
        self.count.recomputed_tokens += again

    def token(self, request: int, clock: int, now: int) -> None:
        """The first token, or the first after a time without; one with every step from now on."""
        if self.first_token[request] < 0:
            self.first_token[request] = now
        else:
            self.max_gap[request] = max(self.max_gap[request], now - self._last_token[request])
        self._regular_since[request] = clock

    def pause(self, request: int, now: int) -> None:
        """No further token with every step; the last one came at `now`. Nothing where that is known."""
        since = self._regular_since.pop(request, None)
        if since is not None:
            self._last_token[request] = now
            self.max_gap[request] = max(self.max_gap[request], self._longest.since(since))

    def preempt(self, request: int, computed: int, *, for_memory: bool) -> None:
        """`request` lost the cache of its first `computed` tokens."""
        self._computed_once[request] = max(self._computed_once[request], computed)
        if for_memory:
            self.count.memory_preemptions += 1
            self.memory_preemptions[request] += 1
        else:
            self.count.policy_preemptions += 1
            self.policy_preemptions[request] += 1

    def finish(self, request: int, now: int) -> None:
        """The last token came."""
        self.pause(request, now)
        self.end[request] = now
