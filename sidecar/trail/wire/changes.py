"""What can happen to a request in an engine, and why. Standard library only: policies name causes, too."""

import enum


class Change(enum.IntEnum):
    """What happened to a request, numbered as in `trail.v1`."""

    ARRIVED = 1
    FOUND = 2  # open already when the sidecar heard of it
    PREDICTED = 3
    ADMITTED = 4
    FIRST_TOKEN = 5
    PREEMPTED = 6
    RESUMED = 7
    PROTECTED = 8
    DENIED = 9
    ENDED = 10


class Cause(enum.IntEnum):
    """Why it happened, numbered as in `trail.v1`."""

    NONE = 0
    # Of PREEMPTED: by vLLM; by the policy for another's slot, or for another's memory.
    KV_FULL = 1
    SLOT = 2
    ROOM = 3
    # Of DENIED: why the running request keeps its place.
    PROTECTED = 4
    LIMIT = 5
    RATIO = 6
    MEMORY = 7
    BUSY = 8
    ADAPTER = 9
    # Of PREDICTED: where the prediction comes from.
    PROMPT = 10
    PROBE = 11
    ENGINE = 12

    @property
    def label(self) -> str:
        """Its name in metrics and attributes, as in `kv_full`."""
        return self.name.lower()
