"""Sends the requests of every missing shard, follows them, and puts the shards in place."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trail.serving.offline import Answers, EngineError
from trail.training.profile.collector import Collector, ExportError
from trail.training.profile.estimate import DiskUse, check_room, longest_outputs, size_text
from trail.training.recording.layout import RecordingError
from trail.training.recording.prompts import TokenPrompt
from trail.training.recording.settings import RecordingSettings, ShardPlan
from trail.training.recording.spool import Spool
from trail.training.recording.store import RecordingStore
from trail.wire.errors import WireError
from trail.wire.frames import FrameReader

_OPEN_SHARDS = 4
_POLL_S = 0.2
_LATE_S = 20.0
"""How long after the last row of a shard a missing one may still come."""
_LATE_POLL_S = 0.02


class RequestEngine(Protocol):
    """What answers requests (`OfflineEngine`)."""

    def submit(self, requests: Sequence[dict[str, Any]]) -> None:
        """Take requests, each with `id`, `prompt` and `sampling`."""
        ...

    def answers(self, timeout_s: float) -> Answers | None:
        """The next answers, None where none came in time. Raises EngineError."""
        ...


class Progress(Protocol):
    """Is told how far the recording is."""

    def request_done(self, tokens: int) -> None:
        """A request was answered."""
        ...

    def shard_done(self, plan: ShardPlan, size_bytes: int) -> None:
        """A shard is in place."""
        ...

    def say(self, line: str) -> None:
        """Something the user should know."""
        ...


@dataclass
class _OpenShard:
    """A shard whose requests are on their way; `left` have not ended."""

    plan: ShardPlan
    spool: Spool
    output_tokens: npt.NDArray[np.int64]
    censored: npt.NDArray[np.bool_]
    left: int

    @property
    def numbers(self) -> range:
        return range(self.plan.first, self.plan.first + self.plan.requests)


def sampling_seed(seed: int, prompt_index: int, sample: int) -> int:
    """Seed of one request, from its place in the recording alone: a resumed run samples the same answers."""
    digest = blake2b(f"{seed} {prompt_index} {sample}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


class Recorder:
    """One run over the shards that `store` misses: `engine` answers, and exports hidden states to `ring`.

    The next shard is sent before the present one has ended, so that the engine has enough to do: `slots` is
    how many requests it runs at a time.
    """

    def __init__(
        self,
        store: RecordingStore,
        settings: RecordingSettings,
        prompts: Sequence[TokenPrompt],
        engine: RequestEngine,
        ring: FrameReader,
        *,
        slots: int,
        progress: Progress,
    ) -> None:
        self._store = store
        self._settings = settings
        self._prompts = prompts
        self._engine = engine
        self._slots = slots
        self._progress = progress
        self._disk = DiskUse.of(settings)
        lengths = np.array([len(prompt.token_ids) for prompt in prompts], np.int64)
        self._longest = longest_outputs(lengths, settings)
        self._collector = Collector(ring, np.repeat(lengths, settings.samples), settings.shard_requests)
        self._missing = deque(store.missing())
        self._open: dict[int, _OpenShard] = {}
        self._done_bytes, self._done_requests = store.size()

    def record(self) -> None:
        """Record all that is missing.

        Raises EngineError, ExportError and RecordingError for what the engine did wrong, NoRoomError and
        OSError for the disk. Shards that were put in place stay.
        """
        self._report_room()
        self._collector.start()
        try:
            while self._missing or self._open:
                while self._missing and len(self._open) < _OPEN_SHARDS and self._unfinished() < self._slots:
                    self._submit(self._missing.popleft())
                answers = self._answers()
                if answers is not None:
                    self._note(answers)
        finally:
            self._collector.stop()
            for shard in self._open.values():
                shard.spool.close()

    def _unfinished(self) -> int:
        return sum(shard.left for shard in self._open.values())

    def _answers(self) -> Answers | None:
        try:
            answers = self._engine.answers(_POLL_S)
        except (EngineError, WireError):
            self._collector.check()  # the cause, where the engine failed because nobody read
            raise
        self._collector.check()
        return answers

    def _submit(self, plan: ShardPlan) -> None:
        settings = self._settings
        shard = _OpenShard(
            plan=plan,
            spool=self._store.spool(plan),
            output_tokens=np.zeros(plan.requests, np.int64),
            censored=np.zeros(plan.requests, np.bool_),
            left=plan.requests,
        )
        self._open[plan.number] = shard
        self._collector.expect(plan.number, shard.numbers, shard.spool)
        requests = []
        for number in shard.numbers:
            prompt, sample = divmod(number, settings.samples)
            sampling = {
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "max_tokens": settings.max_tokens,
                "seed": sampling_seed(settings.seed, prompt, sample),
            }
            requests.append({"id": number, "prompt": self._prompts[prompt].token_ids, "sampling": sampling})
        self._engine.submit(requests)

    def _note(self, answers: Answers) -> None:
        (answer,), (reason,) = answers.tokens, answers.reasons
        if reason not in ("stop", "length"):
            raise ExportError(
                f"vLLM ended request {answers.id} with {reason!r} instead of an answer; see its log"
            )
        tokens = len(answer)
        number, index = divmod(answers.id, self._settings.shard_requests)
        shard = self._open[number]
        shard.output_tokens[index] = tokens
        shard.censored[index] = reason == "length"
        shard.left -= 1
        self._progress.request_done(tokens)
        if shard.left == 0:
            self._finish(shard)

    def _finish(self, shard: _OpenShard) -> None:
        self._wait_for_rows(shard)
        self._collector.forget(shard.plan.number, shard.numbers)
        size = self._store.finish(shard.plan, shard.spool, shard.output_tokens, shard.censored)
        del self._open[shard.plan.number]
        self._done_bytes += size
        self._done_requests += shard.plan.requests
        self._progress.shard_done(shard.plan, size)
        self._check_room()

    def _wait_for_rows(self, shard: _OpenShard) -> None:
        """Answers may overtake the last rows, which come another way."""
        began_s = time.monotonic()
        while True:
            try:
                for layer in self._settings.layers:
                    shard.spool.order(layer, shard.output_tokens, self._settings.every)
            except RecordingError as error:
                self._collector.check()
                if time.monotonic() - max(began_s, shard.spool.last_row_s) > _LATE_S:
                    raise ExportError(
                        f"{shard.plan.name}: {error}; it was not recorded. vLLM's log may say why a step was"
                        " not exported; the same command tries again"
                    ) from error
                time.sleep(_LATE_POLL_S)
            else:
                return

    def _report_room(self) -> None:
        if self._done_requests:
            left = size_text(self._expected_bytes())
            self._progress.say(f"disk: about {left} more, by the lengths so far")
            self._check_room()
            return
        most = size_text(self._disk.bytes_of(self._longest))
        self._progress.say(f"disk: at most {most}, if every answer runs to its limit; the first shard tells")
        # Answers are mostly far shorter, so that room for all of them at their longest is not asked for.
        first = self._missing[0]
        shard = self._disk.bytes_of(self._longest[first.first : first.first + first.requests])
        check_room(self._store.path, shard + self._disk.while_sorting(shard), "the first shard may")

    def _expected_bytes(self) -> int:
        left = self._settings.requests - self._done_requests
        return round(self._done_bytes / self._done_requests * left)

    def _check_room(self) -> None:
        left = self._expected_bytes()
        if left:
            shard = self._done_bytes * self._settings.shard_requests // self._done_requests
            needed = left + self._disk.while_sorting(shard)
            check_room(self._store.path, needed, "the shards still to come, by the lengths so far,")
