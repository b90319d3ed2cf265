"""From the gathered vectors on the model's device to the frame ring, without making the model wait.

On the CPU the gathered rows go straight into the ring. On CUDA they are copied to pinned host memory on a
side stream and a helper thread writes the frame once the copy's event has completed; the model's stream is
never synchronised. A step that finds no free stage is dropped and counted.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from trail.engine.export.sink import Sink
from trail.engine.log import logger

STAGES = 4
"""Steps in flight between the model and the ring on CUDA."""
IDLE_S = 0.1
LOSSLESS_WAIT_S = 30.0
"""How long a step waits for buffers where nothing may be dropped (profiling alone)."""
_DTYPE_NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def dtype_name(dtype: torch.dtype) -> str:
    """The ring's name of a tensor dtype; raises ValueError for one that frames cannot carry."""
    try:
        return _DTYPE_NAMES[dtype]
    except KeyError:
        raise ValueError(
            f"hidden states of {dtype} cannot be exported; frames carry 16 and 32 bit floats"
        ) from None


def as_numpy(vectors: torch.Tensor) -> npt.NDArray[np.generic]:
    """A CPU tensor as an array without copying; bfloat16 as its raw bits in uint16."""
    if vectors.dtype == torch.bfloat16:
        return vectors.view(torch.uint16).numpy()
    return vectors.numpy()


@dataclass
class Stage:
    """Buffers of one step in flight. `vectors` [rows, hidden] and `index` [rows] lie on the model's device,
    `index_host` where the CPU fills it; `vectors_host` is what the frame is written from."""

    vectors: torch.Tensor
    index: torch.Tensor
    index_host: torch.Tensor
    vectors_host: torch.Tensor
    copied: Any = None

    def load_index(self, index: npt.NDArray[np.int64]) -> torch.Tensor:
        """`index` as a tensor on the model's device."""
        n = len(index)
        self.index_host[:n].numpy()[:] = index
        if self.index is not self.index_host:
            self.index[:n].copy_(self.index_host[:n], non_blocking=True)
        return self.index[:n]


class Transfer(Protocol):
    """Carries gathered vectors to the sink."""

    dropped: int

    @property
    def interval_ns(self) -> int:
        """Nanoseconds between the sidecar's looks at the ring."""
        ...

    def ready(self, now_ns: int) -> bool:
        """Whether somebody reads; called once a step."""
        ...

    def stage(self) -> Stage | None:
        """Buffers for this step, None when all are in flight; where nothing may be dropped it waits."""
        ...

    def send(self, stage: Stage, step: int, rows: npt.NDArray[np.void]) -> None:
        """Pass on the first `len(rows)` vectors of `stage`, which is given back when they are written."""
        ...

    def close(self) -> None:
        """Let go of the ring and of any thread."""
        ...


class DirectTransfer:
    """For models on the CPU: the frame is written within the step."""

    def __init__(self, sink: Sink, rows: int, hidden_size: int, dtype: torch.dtype) -> None:
        self.dropped = 0
        self._sink = sink
        vectors = torch.empty((rows, hidden_size), dtype=dtype)
        index = torch.empty(rows, dtype=torch.int64)
        self._stage = Stage(vectors, index, index, vectors)

    @property
    def interval_ns(self) -> int:
        return self._sink.interval_ns

    def ready(self, now_ns: int) -> bool:
        return self._sink.tend(now_ns)

    def stage(self) -> Stage | None:
        return self._stage

    def send(self, stage: Stage, step: int, rows: npt.NDArray[np.void]) -> None:
        self._sink.write(step, rows, as_numpy(stage.vectors_host[: len(rows)]))

    def close(self) -> None:
        self._sink.close()


class StreamCopier(Protocol):
    """The part that needs the accelerator."""

    def new_stage(self, rows: int, hidden_size: int, dtype: torch.dtype) -> Stage:
        """Device and pinned buffers."""
        ...

    def start_copy(self, stage: Stage, rows: int) -> None:
        """Copy the first `rows` vectors to the host, after what the model's stream holds so far; returns at
        once."""
        ...

    def wait(self, stage: Stage) -> None:
        """Block the calling thread, not the device, until the copy is complete."""
        ...


class CudaCopier:
    """Copies on a stream of its own, ordered after the model's stream by an event."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it bare

    def new_stage(self, rows: int, hidden_size: int, dtype: torch.dtype) -> Stage:
        return Stage(
            vectors=torch.empty((rows, hidden_size), dtype=dtype, device=self._device),
            index=torch.empty(rows, dtype=torch.int64, device=self._device),
            index_host=torch.empty(rows, dtype=torch.int64, pin_memory=True),
            vectors_host=torch.empty((rows, hidden_size), dtype=dtype, pin_memory=True),
            # blocking: the waiting thread sleeps instead of spinning beside the engine.
            copied=torch.cuda.Event(blocking=True),  # type: ignore[no-untyped-call]  # torch leaves it bare
        )

    def start_copy(self, stage: Stage, rows: int) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            stage.vectors_host[:rows].copy_(stage.vectors[:rows], non_blocking=True)
            stage.copied.record(self._stream)

    def wait(self, stage: Stage) -> None:
        stage.copied.synchronize()


class StreamTransfer:
    """For models on an accelerator: a helper thread owns the sink and writes what has been copied.

    A stage is in one of three hands: free, the step that fills it, or the thread. The step reuses a stage's
    device buffers only after the thread has seen its copy complete, so gathers never overwrite a pending one.
    """

    def __init__(
        self, sink: Sink, copier: StreamCopier, rows: int, hidden_size: int, dtype: torch.dtype
    ) -> None:
        self.dropped = 0
        self._sink = sink
        self._copier = copier
        self._free: queue.SimpleQueue[Stage] = queue.SimpleQueue()
        for _ in range(STAGES):
            self._free.put(copier.new_stage(rows, hidden_size, dtype))
        self._jobs: queue.SimpleQueue[tuple[Stage, int, npt.NDArray[np.void]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="trail-export", daemon=True)
        self._thread.start()

    @property
    def interval_ns(self) -> int:
        return self._sink.interval_ns

    def ready(self, now_ns: int) -> bool:  # noqa: ARG002 - the thread tends the sink by its own clock
        return self._sink.active

    def stage(self) -> Stage | None:
        try:
            return self._free.get(timeout=LOSSLESS_WAIT_S if self._sink.lossless else 0.0)
        except queue.Empty:
            self.dropped += 1
            return None

    def send(self, stage: Stage, step: int, rows: npt.NDArray[np.void]) -> None:
        self._copier.start_copy(stage, len(rows))
        self._jobs.put((stage, step, rows))

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        said = ""
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_S)
            except queue.Empty:
                said = _guarded(lambda: self._sink.tend(time.monotonic_ns()), said)
                continue
            if job is None:
                self._sink.close()
                return
            said = _guarded(lambda job=job: self._write(*job), said)  # type: ignore[misc]  # job is bound per turn
            self._free.put(job[0])

    def _write(self, stage: Stage, step: int, rows: npt.NDArray[np.void]) -> None:
        self._copier.wait(stage)
        if self._sink.tend(time.monotonic_ns()):
            self._sink.write(step, rows, as_numpy(stage.vectors_host[: len(rows)]))


def _guarded(action: Callable[[], object], said: str) -> str:
    """Run `action`; an exception is logged unless it repeats the one before. Returns what was said last."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - the thread must outlive whatever happens to one frame
        line = f"{type(error).__name__}: {error}"
        if line != said:
            logger.warning("TRAIL: a frame was not written: %s", line)
        return line
    return said
