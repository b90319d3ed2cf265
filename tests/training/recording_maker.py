"""Recordings of random vectors, made through the store without an engine."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trail.predict.fingerprint import ModelDescription, architecture_fingerprint
from trail.training.recording import RecordingSettings, RecordingStore
from trail.training.recording.layout import due_rows, narrowed, widened
from trail.training.recording.prompts import TokenPrompt, prompts_sha256
from trail.training.recording.settings import ShardPlan

HIDDEN = 6
ARCHITECTURE = {"model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": 4, "vocab_size": 50}


def some_prompts(n: int, seed: int = 0) -> list[TokenPrompt]:
    rng = np.random.default_rng(seed)
    return [
        TokenPrompt(tuple(rng.integers(0, 50, rng.integers(1, 9)).tolist()), "story" if i % 2 else None)
        for i in range(n)
    ]


def settings_of(prompts: Sequence[TokenPrompt], **changes: object) -> RecordingSettings:
    model = ModelDescription(ARCHITECTURE, architecture_fingerprint(ARCHITECTURE), "w" * 64, HIDDEN, 4)
    settings = RecordingSettings(
        model_id="models/small",
        model_revision="abc",
        model=model,
        max_model_len=64,
        dtype="float32",
        vllm_version="0.32.0",
        vllm_args=("--max-num-seqs", "4"),
        layers=(1, 3),
        every=1,
        temperature=1.0,
        top_p=1.0,
        max_tokens=20,
        samples=2,
        seed=0,
        shard_requests=4,
        prompts=len(prompts),
        prompts_sha256=prompts_sha256(prompts),
    )
    return dataclasses.replace(settings, **changes)


class Truth:
    """Lengths, cuts and vectors of every request of a recording, drawn from one seed."""

    def __init__(self, settings: RecordingSettings, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.settings = settings
        self.lengths = rng.integers(1, 12, settings.requests)
        self.censored = rng.random(settings.requests) < 0.3
        shape = (settings.requests, 13, HIDDEN)
        self._vectors = {
            # As a model of that dtype would give them.
            layer: widened(narrowed(rng.normal(size=shape).astype(np.float32), settings.dtype))
            for layer in settings.layers
        }

    def rows(self, layer: int, chosen: np.ndarray | None = None) -> np.ndarray:
        """All rows of a layer one after another."""
        which = np.arange(self.settings.requests) if chosen is None else np.flatnonzero(chosen)
        parts = [self._vectors[layer][i, 0 : self.lengths[i] : self.settings.every] for i in which]
        return np.concatenate([np.zeros((0, HIDDEN), np.float32), *parts])

    def vectors(self, layer: int, requests: np.ndarray, ages: np.ndarray) -> np.ndarray:
        return self._vectors[layer][requests, ages]

    def record(self, store: RecordingStore, plan: ShardPlan, *, arrival: int = 0) -> None:
        """Record one shard; its rows arrive in an order drawn from `arrival`, in batches, some too many."""
        rng = np.random.default_rng([arrival, plan.number])
        own = slice(plan.first, plan.first + plan.requests)
        request, age = due_rows(self.lengths[own], self.settings.every)
        # An engine that schedules ahead runs the last token of some requests as well.
        ahead = np.flatnonzero(rng.random(plan.requests) < 0.3)
        request, age = np.append(request, ahead), np.append(age, self.lengths[own][ahead])
        spool = store.spool(plan)
        for layer in self.settings.layers:
            order = rng.permutation(len(request))
            for batch in np.array_split(order, rng.integers(1, 5)):
                vectors = self.vectors(layer, request[batch] + plan.first, age[batch])
                spool.add(layer, request[batch], age[batch], vectors)
        store.finish(plan, spool, self.lengths[own], self.censored[own])


def make_recording(
    path: Path, prompts: Sequence[TokenPrompt], truth: Truth, *, arrival: int = 0, shards: int | None = None
) -> None:
    """Record the missing shards of the recording at `path`, at most `shards` of them."""
    with RecordingStore(path) as store:
        store.begin(truth.settings, prompts)
        for plan in store.missing()[:shards]:
            truth.record(store, plan, arrival=arrival)
