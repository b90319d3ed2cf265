"""What every open request goes through in the engine: changes of its state, and their sum.

Only changes cost anything: of a step in which no request starts, stops or gets its first token nothing here
is called.
"""

from collections.abc import Callable, Sequence
from typing import Any

from trail.wire.changes import Cause, Change
from trail.wire.lifecycle import Changed, EngineSummary


class OpenSummary:
    """An open request's summary as it grows; times as in `EngineSummary`."""

    __slots__ = (
        "admitted_ns", "denied", "fallback_from", "first_token_ns", "granted", "key", "memory_preemptions",
        "policy_preemptions", "queued_ns", "slot", "waited_ns", "waiting_since_ns",
    )  # fmt: skip

    def __init__(self, key: int, slot: int, now_ns: int, fallback_steps: int) -> None:
        self.key = key
        self.slot = slot
        self.queued_ns = now_ns
        self.waiting_since_ns = now_ns
        self.admitted_ns = 0
        self.first_token_ns = 0
        self.waited_ns = 0
        self.policy_preemptions = 0
        self.memory_preemptions = 0
        self.granted = 0
        self.denied: tuple[Cause, ...] = ()
        self.fallback_from = fallback_steps

    def so_far(self, fallback_steps: int, ended_ns: int = 0) -> EngineSummary:
        """The summary to be sent."""
        return EngineSummary(
            queued_ns=self.queued_ns,
            admitted_ns=self.admitted_ns,
            first_token_ns=self.first_token_ns,
            ended_ns=ended_ns,
            waited_ns=self.waited_ns,
            policy_preemptions=self.policy_preemptions,
            memory_preemptions=self.memory_preemptions,
            granted=self.granted,
            denied=self.denied,
            fallback_steps=fallback_steps - self.fallback_from,
            running=self.waiting_since_ns == 0,
        )


class Summaries:
    """The summaries of all open requests by vLLM's id; `report` is told of every change, with the board row.

    `before_first` holds requests that run and have no token yet, by id. `kept_running` is how many of those
    that ran before vLLM's `schedule()` run on: the caller sets it before, and those that run beyond it
    afterwards are the ones that vLLM has started.
    """

    def __init__(self, report: Callable[[int, Changed], None]) -> None:
        self._report = report
        self._by_id: dict[str, OpenSummary] = {}
        self.before_first: dict[str, Any] = {}
        self.kept_running = 0
        self._policy_victims: dict[str, tuple[Cause, str]] = {}

    def get(self, request_id: str) -> OpenSummary | None:
        """The summary of an open request."""
        return self._by_id.get(request_id)

    def add(self, request_id: str, key: int, slot: int, now_ns: int, fallback_steps: int) -> OpenSummary:
        """A request enters the queue."""
        summary = self._by_id[request_id] = OpenSummary(key, slot, now_ns, fallback_steps)
        return summary

    def first_tokens(self, now_ns: int) -> None:
        """Before a step: report whose first token came with the step before."""
        for request_id, request in list(self.before_first.items()):
            if request.num_output_tokens:
                del self.before_first[request_id]
                if (summary := self._by_id.get(request_id)) is not None:
                    self._first_token(summary, request, now_ns)

    def scheduled(self, running: Sequence[Any], now_ns: int, rank_of: Callable[[Any], float | None]) -> None:
        """vLLM has scheduled a step and started requests, which are the last of `running`."""
        for request in running[self.kept_running :]:
            summary = self._by_id.get(request.request_id)
            if summary is None or not summary.waiting_since_ns:
                continue
            summary.waited_ns += now_ns - summary.waiting_since_ns
            summary.waiting_since_ns = 0
            change = Change.RESUMED
            if not summary.admitted_ns:
                summary.admitted_ns = now_ns
                change = Change.ADMITTED
            if not summary.first_token_ns:
                self.before_first[request.request_id] = request
            age, rank = request.num_output_tokens, rank_of(request)
            self._report(summary.slot, Changed(summary.key, change, now_ns, age, rank=rank))

    def policy_preempts(self, victim: Any, newcomer: Any, cause: Cause) -> None:
        """The policy is about to have `victim` give way to `newcomer`."""
        self._policy_victims[victim.request_id] = (cause, newcomer.request_id)

    def preempted(self, request: Any, now_ns: int) -> None:
        """vLLM is about to preempt `request`, for want of memory or for the policy."""
        request_id = request.request_id
        cause, newcomer_id = self._policy_victims.pop(request_id, (Cause.KV_FULL, ""))
        summary = self._by_id.get(request_id)
        if summary is None:
            return
        self.kept_running -= 1
        summary.waiting_since_ns = now_ns
        other = 0
        if cause == Cause.KV_FULL:
            summary.memory_preemptions += 1
        else:
            summary.policy_preemptions += 1
            if (newcomer := self._by_id.get(newcomer_id)) is not None:
                newcomer.granted += 1
                other = newcomer.key
        self.before_first.pop(request_id, None)
        age = request.num_output_tokens + request.num_output_placeholders
        self._report(summary.slot, Changed(summary.key, Change.PREEMPTED, now_ns, age, cause, other))

    def denied(self, request: Any, holder: Any, cause: Cause, rank: float, now_ns: int) -> bool:
        """`request` does not get the place of `holder` (None: of nobody in particular).

        False where this cause has been reported of it.
        """
        summary = self._by_id.get(request.request_id)
        if summary is None or cause in summary.denied:
            return False
        summary.denied += (cause,)
        holding = self._by_id.get(holder.request_id) if holder is not None else None
        other = holding.key if holding is not None else 0
        age = request.num_output_tokens
        self._report(summary.slot, Changed(summary.key, Change.DENIED, now_ns, age, cause, other, rank))
        return True

    def end(self, request: Any, now_ns: int) -> OpenSummary | None:
        """A request has ended; its summary, None when it was not open."""
        request_id = request.request_id
        self.before_first.pop(request_id, None)
        self._policy_victims.pop(request_id, None)
        summary = self._by_id.pop(request_id, None)
        if summary is None:
            return None
        if summary.waiting_since_ns:
            summary.waited_ns += now_ns - summary.waiting_since_ns
        elif not summary.first_token_ns and request.num_output_tokens:
            self._first_token(summary, request, now_ns)
        return summary

    def _first_token(self, summary: OpenSummary, request: Any, now_ns: int) -> None:
        summary.first_token_ns = now_ns
        age = request.num_output_tokens
        self._report(summary.slot, Changed(summary.key, Change.FIRST_TOKEN, now_ns, age))
