"""Whether nobody waits for an engine: its order does not matter then, and predictions can rest."""

CALM_AFTER_NS = 500_000_000
"""How long nobody must have waited."""
KV_FULL = 0.8
"""Share of the KV cache in use from which memory, not slots, may make requests wait."""


class Calm:
    """Follows one engine's queue. Busy at once when somebody waits or the next request would have to,
    calm when that has not been so for `CALM_AFTER_NS`."""

    def __init__(self) -> None:
        self._busy_ns: int | None = None

    def look(self, now_ns: int, *, open_requests: int, slots: int, waiting: int, kv_usage: float) -> bool:
        """Whether the engine is calm at `now_ns`, with `slots` requests running at most (0: not known)."""
        if self._busy_ns is None or open_requests >= slots or waiting or kv_usage >= KV_FULL:
            self._busy_ns = now_ns
        return now_ns - self._busy_ns >= CALM_AFTER_NS
