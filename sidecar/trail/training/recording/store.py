"""A recording while it is made: begun or gone on with, shard by shard."""

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from trail.training.recording.layout import PROMPTS_FILE, RECORDING_FILE, RecordingError
from trail.training.recording.prompts import TokenPrompt, prompt_lines
from trail.training.recording.settings import RecordingSettings, ShardPlan, differences, read_settings
from trail.training.recording.shard import planned_requests, write_shard
from trail.training.recording.spool import Spool
from trail.wire.files import replacing

LOG_FILE = "vllm.log"
"""vLLM's log of the run; no part of the recording."""


class RecordingStore:
    """The directory of a recording, held by one process at a time. A context manager: leaving it releases the
    directory and removes what was not finished.

    `settings` are those of the recording that is already there, None in a new directory.
    """

    def __init__(self, path: Path) -> None:
        """Raises RecordingError where `path` holds something else or another process writes to it."""
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordingError(f"cannot make {path}: {error.strerror}; name another directory") from error
        self._lock = _locked(path)
        try:
            self.settings = read_settings(path) if (path / RECORDING_FILE).exists() else None
            if self.settings is None:
                _refuse_others(path)
        except RecordingError:
            os.close(self._lock)
            raise
        _remove_leftovers(path)

    def __enter__(self) -> "RecordingStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _remove_leftovers(self.path)
        os.close(self._lock)

    def begin(self, settings: RecordingSettings, prompts: Sequence[TokenPrompt]) -> None:
        """Start the recording, or go on with the one that is there.

        Raises RecordingError naming what differs where that one has other settings.
        """
        if self.settings is None:
            _write(self.path / PROMPTS_FILE, prompt_lines(prompts))
            content = json.dumps(settings.to_json(), indent=1) + "\n"
            _write(self.path / RECORDING_FILE, content.encode())
            self.settings = settings
            return
        differing = differences(self.settings, settings)
        if differing:
            raise RecordingError(
                f"{self.path} was begun with other settings: {'; '.join(differing)}; give the same to go on"
                " with it, or another --out to begin anew"
            )

    def missing(self) -> list[ShardPlan]:
        """Shards that are still to be recorded."""
        return [s for s in self._begun().shards() if not (self.path / s.name).is_dir()]

    def size(self) -> tuple[int, int]:
        """Bytes and requests of the shards that are there."""
        there = [s for s in self._begun().shards() if (self.path / s.name).is_dir()]
        size = sum(file.stat().st_size for s in there for file in (self.path / s.name).iterdir())
        return size, sum(s.requests for s in there)

    def spool(self, plan: ShardPlan) -> Spool:
        """Where the rows of a shard are to go while it is recorded."""
        settings = self._begun()
        directory = self.path / f".spool-{plan.name}"
        return Spool(directory, settings.layers, settings.model.hidden_size, settings.dtype)

    def finish(
        self,
        plan: ShardPlan,
        spool: Spool,
        output_tokens: npt.NDArray[np.integer],
        censored: npt.NDArray[np.bool_],
    ) -> int:
        """Put a shard in place, given the outcome of its requests [n]; closes `spool`. Returns its bytes.

        Raises RecordingError, with nothing put in place, where a row is missing.
        """
        settings = self._begun()
        requests = planned_requests(settings, plan)
        requests["output_tokens"], requests["censored"] = output_tokens, censored
        files = write_shard(self.path / plan.name, settings, requests, spool)
        spool.close()
        return sum(record.bytes for record in files.values())

    def _begun(self) -> RecordingSettings:
        if self.settings is None:
            raise ValueError("the recording has not begun")
        return self.settings


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RecordingError(
            f"another trail profile is writing to {path}; wait for its end or name another directory"
        ) from error
    except OSError:  # a file system without locks: the user sees to it that one process writes
        pass
    return descriptor


def _refuse_others(path: Path) -> None:
    own = {path / PROMPTS_FILE, path / LOG_FILE, *_half_made(path)}
    others = sorted(p.name for p in path.iterdir() if p not in own)
    if others:
        raise RecordingError(
            f"{path} holds something else than a recording ({others[0]}); name another --out"
        )


def _remove_leftovers(path: Path) -> None:
    """What a killed run was in the middle of: spools, shards and files not yet in place."""
    for pattern in (".spool-shard-*", ".shard-*"):
        for leftover in path.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)
    for half in _half_made(path):
        half.unlink(missing_ok=True)


def _half_made(path: Path) -> list[Path]:
    """Files of `replacing` that a killed run left."""
    return [half for name in (PROMPTS_FILE, RECORDING_FILE) for half in path.glob(f".{name}.*.tmp")]


def _write(file: Path, content: bytes) -> None:
    with replacing(file) as temporary, temporary.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
