"""Snapshots of sidecars over gRPC, and what to say where there are none."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from trail.wire.names import socket_path
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

LIVES = 200
"""Requests of each kind and engine that are asked for."""
_TIMEOUT_S = 2.0
_RETRY_MS = 500


class AddressError(ValueError):
    """An address that cannot be one; the message says how to write it."""


@dataclass(frozen=True)
class Reading:
    """One sidecar at a moment. `snapshot` (`trail.v1.SnapshotResponse`) is the newest there is, None before
    the first; `age_s` is how old it is. `trouble` says in a sentence why there is no newer one.
    """

    address: str
    snapshot: Any | None
    age_s: float = 0.0
    trouble: str = ""


def target(address: str) -> str:
    """What gRPC calls an address: HOST:PORT, or the shared directory of a sidecar on this machine.

    Raises AddressError.
    """
    if address.startswith("unix:"):
        return address
    if os.sep in address:
        return f"unix:{socket_path(Path(address).expanduser())}"
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise AddressError(
            f"{address!r} is no address of a sidecar: write HOST:PORT (its --rank-address), or the directory"
            " it shares with vLLM (its --dir), as in /dev/shm/trail"
        )
    return address


class SnapshotSource:
    """One sidecar, asked again and again. A connection that breaks is made anew by itself."""

    def __init__(self, address: str, lives: int = LIVES) -> None:
        """Raises AddressError."""
        self.address = address
        options = [("grpc.max_reconnect_backoff_ms", _RETRY_MS), ("grpc.initial_reconnect_backoff_ms", 100)]
        self._channel = grpc.insecure_channel(target(address), options=options)
        self._stub = trail_pb2_grpc.ObserveStub(self._channel)
        self._request = trail_pb2.SnapshotRequest(requests=lives)
        self._newest: Any | None = None
        self._newest_s = 0.0
        self._trouble = ""
        self._call: Any = None

    def ask(self) -> None:
        """Sends the question; the answer is taken by `reading`."""
        self._call = self._stub.Snapshot.future(self._request, timeout=_TIMEOUT_S)

    def reading(self) -> Reading:
        """What came of the last `ask`; waits for it."""
        if self._call is not None:
            try:
                self._newest, self._newest_s = self._call.result(), time.monotonic()
                self._trouble = ""
            except grpc.RpcError as error:
                self._trouble = trouble(self.address, error.code(), error.details() or "", self._newest)
            self._call = None
        age_s = time.monotonic() - self._newest_s if self._newest is not None else 0.0
        return Reading(self.address, self._newest, age_s, self._trouble)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()


def trouble(address: str, code: Any, details: str, newest: Any | None) -> str:
    """Why there is no new snapshot from `address`, and what to do."""
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return f"the sidecar at {address} is older than this command and shows nothing; update it"
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"the sidecar at {address} does not answer within {_TIMEOUT_S:g} s; trying again"
    if code == grpc.StatusCode.UNAVAILABLE and newest is not None:
        return f"lost the sidecar at {address}; trying again"
    if code == grpc.StatusCode.UNAVAILABLE:
        return (
            f"no sidecar at {address}: start one (trail serve, trail sidecar), or give the address of one"
            " that runs"
        )
    return (
        f"the sidecar at {address} cannot answer: {code.name}: {details.splitlines()[0] if details else ''}"
    )


def ask_all(sources: Sequence[SnapshotSource]) -> list[Reading]:
    """One reading of each, asked at the same time."""
    for source in sources:
        source.ask()
    return [source.reading() for source in sources]
