"""vLLM as a recording needs it: with TRAIL's export to a lossless ring."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trail.serving.launch import shared_directory, with_trail
from trail.serving.offline import OfflineEngine
from trail.serving.setup import serving_environment
from trail.wire import names
from trail.wire.frames import FrameReader, RingSpec

_RING_BYTES = 32 << 20
_HEARTBEAT_MS = 60_000
"""How long the recorder may be held up, by the disk for example, before the engine takes it for dead."""


@dataclass(frozen=True)
class EngineSpec:
    """What the engine is to run. `args` are vLLM's own command-line arguments, the model among them."""

    args: Sequence[str]
    local_model: bool
    layers: Sequence[int]
    hidden_size: int
    every: int


@contextlib.contextmanager
def recording_engine(spec: EngineSpec, log: Path) -> Iterator[tuple[OfflineEngine, FrameReader]]:
    """vLLM, started and not ready yet, and the ring it exports to; `log` takes all that it writes.

    The prompt's vector is the mean over all of it, so that prompts are computed whole. Raises EngineError.
    """
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(shared_directory())
        ring = FrameReader.create(names.ring_path(directory, 0), _ring(spec))
        stack.callback(ring.close, unlink=True)
        env = serving_environment(os.environ, local_model=spec.local_model, cpus=os.cpu_count())
        env |= {
            names.ENV_EXPORT_EVERY: str(spec.every),
            names.ENV_HEARTBEAT_MS: str(_HEARTBEAT_MS),
            "VLLM_DISABLE_REQUEST_ID_RANDOMIZATION": "1",  # the ring names requests by their ids
            "VLLM_NO_USAGE_STATS": "1",
        }
        engine = OfflineEngine(
            spec.args,
            with_trail(env, directory, spec.layers),
            directory,
            log,
            whole_prompts=True,
            layers=spec.layers,
        )
        yield stack.enter_context(engine), ring


def _ring(spec: EngineSpec) -> RingSpec:
    slot_bytes = RingSpec(spec.hidden_size).slot_bytes
    slots = min(max(_RING_BYTES // slot_bytes, 4), 256)
    return RingSpec(spec.hidden_size, slots=slots, lossless=True)
