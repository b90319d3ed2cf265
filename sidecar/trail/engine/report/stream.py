"""The lifecycle stream: a background thread tells the sidecar what becomes of requests.

The scheduler's thread only appends small tuples to a queue and never waits. While no stream is open events
are dropped: a stream begins with `Hello` and all open requests. So does the next one when the sidecar reads
too slowly and the queue is full.
"""

import atexit
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from trail.engine.log import logger
from trail.wire.backoff import Backoff
from trail.wire.lifecycle import Clocks, Event, Hello, Load, Started, to_message
from trail.wire.log_lines import OnChange

LOAD_INTERVAL_S = 0.1
MESSAGE_INTERVAL_S = 0.05
"""Pause after a message, so that events share one: gRPC hands each message through several threads, which
compete with the scheduler's for the interpreter. A request may wait this long for its first prediction."""
RETRIES = Backoff(first_s=0.2, longest_s=1.0, factor=1.5)
"""Pauses before the sidecar is looked for again."""
QUEUE_LIMIT = 16_384
MESSAGE_EVENTS = 256
"""Events in one message at most, so that a resend of long prompts stays well below gRPC's size limit."""
CONNECT_TIMEOUT_S = 1.0

SHUTDOWN_S = 1.0

Item = Event | None


class LifecycleStream:
    """Reports to the sidecar behind `socket`, reconnecting for as long as the engine lives.

    The scheduler's thread calls `report`, `set_load`, `wants_resend`, `resend` and `restart`; none of them
    waits or raises for the sidecar's sake. `idle` is called by the thread about every `LOAD_INTERVAL_S`.
    """

    def __init__(self, socket: Path, hello: Hello, idle: Callable[[], None] | None = None) -> None:
        self._socket = socket
        self._hello = hello
        self._idle = idle
        self._queue: SimpleQueue[Item] = SimpleQueue()
        self._open = False
        self._resend = False
        self._load: Load | None = None
        self._sent_load: Load | None = None
        self._call: Any = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trail-lifecycle", daemon=True)
        self._say = OnChange(logger)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()
        atexit.register(self.stop, SHUTDOWN_S)

    def report(self, event: Event) -> None:
        """Queue one event; dropped when no stream is open."""
        if not self._open:
            return
        if self._queue.qsize() >= QUEUE_LIMIT:
            self.restart()
            return
        self._queue.put(event)

    def set_load(self, load: Load) -> None:
        """The load to send with the next message."""
        self._load = load

    @property
    def wants_resend(self) -> bool:
        """Whether a stream has begun that has not been given the open requests."""
        return self._resend

    def resend(self, requests: Sequence[Started]) -> None:
        """All open requests, for a stream that has just begun."""
        self._resend = False
        for event in requests:
            self._queue.put(event)

    def restart(self) -> None:
        """End the stream; another begins with the sidecar that listens then."""
        self._open = False
        self._queue.put(None)
        if (call := self._call) is not None:
            call.cancel()

    def stop(self, wait_s: float = 0.0) -> None:
        """End the thread, waiting for it at most `wait_s`."""
        if self._stop.is_set():
            return
        self._stop.set()
        self.restart()
        if wait_s > 0 and self._thread.is_alive():
            self._thread.join(timeout=wait_s)
        atexit.unregister(self.stop)

    def _run(self) -> None:
        try:
            import grpc

            from trail.wire.v1 import trail_pb2_grpc
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the libraries, the engine must go on
            logger.warning("TRAIL: no lifecycle stream, grpcio or protobuf cannot be used: %s", error)
            return
        pause_s = RETRIES.first_s
        while not self._stop.is_set():
            try:
                began = self._socket.exists() and self._stream(grpc, trail_pb2_grpc)
            except Exception as error:  # noqa: BLE001 - a broken stream must never end the thread
                began = False
                self._say(f"TRAIL: lifecycle stream to {self._socket}: {error}")
            pause_s = RETRIES.first_s if began else RETRIES.after(pause_s)
            self._call_idle()
            self._stop.wait(pause_s)

    def _stream(self, grpc: Any, stubs: Any) -> bool:
        """One stream from connection to end. Whether it began."""
        channel = grpc.insecure_channel(f"unix:{self._socket}")
        began = False
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_TIMEOUT_S)
            queue: SimpleQueue[Item] = SimpleQueue()
            self._queue = queue
            self._sent_load = None
            call = stubs.LifecycleStub(channel).Report.future(self._messages(queue))
            began = True
            self._call = call
            if self._stop.is_set():
                call.cancel()
            error = call.exception()
        except grpc.FutureTimeoutError:
            return False
        except grpc.FutureCancelledError:
            error = None
        finally:
            self._open = False
            self._call = None
            # The consuming thread of a stream that the sidecar ended waits in this queue.
            self._queue.put(None)
            channel.close()
        if error is not None and not self._stop.is_set():
            self._say(
                f"TRAIL: the sidecar ended the lifecycle stream ({error.code().name}): {error.details()}"
            )
        return began

    def _messages(self, queue: "SimpleQueue[Item]") -> Iterator[Any]:
        """Messages of one stream, built in gRPC's own thread."""
        yield to_message([self._hello])
        self._open = True
        self._resend = True
        while not self._stop.is_set():
            events, ended = _batch(queue)
            self._call_idle()
            load = self._load if self._load != self._sent_load else None
            if events or load is not None:
                self._sent_load = load or self._sent_load
                yield to_message([*events, *([] if load is None else [load]), Clocks.read()])
                if not ended:
                    self._stop.wait(MESSAGE_INTERVAL_S)
            if ended:
                return

    def _call_idle(self) -> None:
        if self._idle is not None:
            self._idle()


def _batch(queue: "SimpleQueue[Item]") -> tuple[list[Event], bool]:
    """Events for one message, and whether the stream is to end.

    Waits for the first event up to `LOAD_INTERVAL_S`. In which order they are to be applied follows
    from their keys and slots.
    """
    events: list[Event] = []
    try:
        while len(events) < MESSAGE_EVENTS:
            item = queue.get_nowait() if events else queue.get(timeout=LOAD_INTERVAL_S)
            if item is None:
                return events, True
            events.append(item)
    except Empty:
        pass
    return events, False
