"""A whole recording, opened to train or judge on."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from trail.predict.fingerprint import ModelDescription
from trail.training.recording.layout import RecordingError, due_rows, row_counts
from trail.training.recording.prompts import read_prompts
from trail.training.recording.settings import RecordingSettings, ShardPlan, read_settings
from trail.training.recording.shard import Shard, read_shard
from trail.training.recording.vectors import RecordedVectors

if TYPE_CHECKING:  # brings torch in, which making a recording can do without
    from trail.predict.training.evaluation import Sequences


@dataclass(frozen=True)
class RecordedRequests:
    """One entry a request. `prompt_index` int64 [n] into the prompts, `sample` int64 [n].

    `output_tokens` int64 [n]: the whole length, the token that ended it included. `censored` bool [n]: cut by
    the limit of tokens or by the context, so that the true length is longer.
    """

    prompt_index: npt.NDArray[np.int64]
    sample: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    censored: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.prompt_index)


@dataclass(frozen=True)
class Recording:
    """What `trail profile` recorded. Vectors stay on disk until they are asked for.

    `prompts` are token ids; `kinds` has the kind of each prompt ("" where it has none), None where no prompt
    has one. `sha256` is over the prompts and the shards in order: recordings of equal content have equal
    values, however often they were interrupted.
    """

    path: Path
    settings: RecordingSettings
    prompts: list[tuple[int, ...]]
    kinds: list[str] | None
    requests: RecordedRequests
    sha256: str
    _shards: Sequence[Shard]

    @classmethod
    def open(cls, path: Path, *, check_contents: bool = True) -> "Recording":
        """Open the recording in directory `path`.

        All of it is read once to compare its checksums; without `check_contents` the vectors are not, only
        their sizes. Raises RecordingError for a recording that is missing, incomplete, damaged (naming the
        shard), empty or of another version.
        """
        settings = read_settings(path)
        prompts = read_prompts(path, settings.prompts_sha256)
        plans = settings.shards()
        missing = [plan.name for plan in plans if not (path / plan.name).is_dir()]
        if missing:
            raise RecordingError(
                f"the recording {path} is incomplete: {len(missing)} of {len(plans)} shards are missing, the"
                f" first is {missing[0]}; run the same trail profile command again, which goes on there"
            )

        def read(plan: ShardPlan) -> Shard:
            return read_shard(path / plan.name, settings, plan, contents=check_contents)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets go of the interpreter
            shards = list(pool.map(read, plans))
        kinds = [prompt.kind or "" for prompt in prompts]
        return cls(
            path=path,
            settings=settings,
            prompts=[prompt.token_ids for prompt in prompts],
            kinds=kinds if any(kinds) else None,
            requests=_requests(shards),
            sha256=_sha256(settings, shards),
            _shards=shards,
        )

    @property
    def layers(self) -> tuple[int, ...]:
        """Recorded layers, numbered as Hugging Face `hidden_states`."""
        return self.settings.layers

    @property
    def hidden_size(self) -> int:
        """Length of a vector."""
        return self.settings.model.hidden_size

    @property
    def every(self) -> int:
        """Tokens from one row of a request to its next."""
        return self.settings.every

    @property
    def model_id(self) -> str:
        """The model's name as it was given."""
        return self.settings.model_id

    @property
    def model_revision(self) -> str:
        """Which weights they were: the commit of a Hugging Face model, or the start of their fingerprint."""
        return self.settings.model_revision

    @property
    def max_model_len(self) -> int:
        """The context in tokens, prompt and output together."""
        return self.settings.max_model_len

    @property
    def model(self) -> ModelDescription:
        """The model's architecture and fingerprints."""
        return self.settings.model

    def sequences(self, layer: int, chosen: npt.NDArray[np.bool_] | None = None) -> "Sequences":
        """Rows of one layer of all requests, or of those `chosen` (bool [n]), in the requests' order.

        Raises ValueError for a layer that was not recorded or a `chosen` of another shape.
        """
        from trail.predict.training.evaluation import Sequences

        if layer not in self.layers:
            raise ValueError(
                f"layer {layer} was not recorded, these were: {', '.join(map(str, self.layers))}"
            )
        requests = self.requests
        if chosen is None:
            chosen = np.ones(len(requests), np.bool_)
        elif chosen.dtype != np.bool_ or chosen.shape != (len(requests),):
            raise ValueError(
                f"chosen must be bool [{len(requests)}], got {chosen.dtype} {list(chosen.shape)}"
            )
        counts = row_counts(requests.output_tokens, self.every)
        rows = None if chosen.all() else np.flatnonzero(np.repeat(chosen, counts))
        vectors = RecordedVectors([shard.vectors[layer] for shard in self._shards], rows)
        lengths = requests.output_tokens[chosen]
        prompt_tokens = np.array([len(prompt) for prompt in self.prompts], np.int64)[
            requests.prompt_index[chosen]
        ]
        return Sequences(
            # Stands in for an array wherever rows are taken by number or slice.
            vectors=cast("npt.NDArray[np.float32]", vectors),
            ages=due_rows(lengths, self.every)[1],
            offsets=np.concatenate([[0], np.cumsum(counts[chosen])]),
            lengths=lengths,
            prompt_tokens=prompt_tokens,
            censored=requests.censored[chosen],
            limits=np.minimum(self.settings.max_tokens, self.max_model_len - prompt_tokens),
        )


def _requests(shards: Sequence[Shard]) -> RecordedRequests:
    joined = np.concatenate([shard.requests for shard in shards])
    return RecordedRequests(
        prompt_index=joined["prompt_index"].astype(np.int64),
        sample=joined["sample"].astype(np.int64),
        output_tokens=joined["output_tokens"].astype(np.int64),
        censored=joined["censored"].astype(np.bool_),
    )


def _sha256(settings: RecordingSettings, shards: Sequence[Shard]) -> str:
    digest = hashlib.sha256(settings.prompts_sha256.encode())
    for shard in shards:
        for name, record in sorted(shard.files.items()):
            digest.update(f"{name} {record.sha256}\n".encode())
    return digest.hexdigest()
