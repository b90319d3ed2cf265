"""Samples answers from a small Hugging Face model, reads their hidden states, and measures their lengths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trail.predict.training.evaluation import Sequences

_BATCH = 256
_PASS = 32
#: Rows that have ended stay in the batch until this share of it is left, since copying the cache costs too.
_COMPACT_AT = 0.7


@dataclass(frozen=True)
class Sample:
    """One answer: `output` holds the generated ids, the end-of-text token included where `ended`."""

    prompt: tuple[int, ...]
    output: tuple[int, ...]
    ended: bool


@dataclass(frozen=True)
class LengthStatistics:
    """Output lengths over a distribution of prompts.

    `prompt_r2` is the share of the length variance that the conditional mean given the prompt explains:
    the between-prompt component of a one-way random-effects analysis, which is unbiased in its
    components (the spread of the sample means alone would count sampling noise as explained).
    """

    samples: int
    mean_tokens: float
    scv: float
    prompt_r2: float
    ended_share: float
    max_tokens: int


def sample_answers(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    *,
    seed: int,
    max_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> list[Sample]:
    """One answer a prompt, at temperature 1 from the whole vocabulary.

    Cut at `max_tokens`, and where the model's context ends, as a server cuts it.

    The same seed, prompts and model give the same answers. `progress` hears how many were finished.
    """
    generator = torch.Generator().manual_seed(seed)
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    result: dict[int, Sample] = {}
    for length in sorted(by_length):  # prompts of one length need neither padding nor a mask
        members = by_length[length]
        for start in range(0, len(members), _BATCH):
            chunk = members[start : start + _BATCH]
            ids = torch.tensor([prompts[i] for i in chunk])
            limit = min(max_tokens, int(model.config.max_position_embeddings) - length)
            for index, output in zip(chunk, _generate(model, ids, generator, limit), strict=True):
                result[index] = Sample(
                    tuple(prompts[index]), tuple(output), output[-1] == model.config.eos_token_id
                )
            if progress is not None:
                progress(len(chunk))
    return [result[index] for index in range(len(prompts))]


def length_statistics(lengths: npt.ArrayLike, ended_share: float) -> LengthStatistics:
    """Statistics of output lengths [prompts, samples a prompt], at least two of each."""
    values = np.asarray(lengths, np.float64)
    prompts, repeats = values.shape
    if prompts < 2 or repeats < 2:
        raise ValueError(f"prompt_r2 needs at least 2 prompts with 2 samples each, got {prompts} x {repeats}")
    within = float(values.var(axis=1, ddof=1).mean())
    between = float(values.mean(axis=1).var(ddof=1)) - within / repeats
    total = within + between
    mean = float(values.mean())
    return LengthStatistics(
        samples=values.size,
        mean_tokens=mean,
        scv=total / mean**2,
        prompt_r2=between / total,
        ended_share=ended_share,
        max_tokens=int(values.max()),
    )


def measure(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    *,
    repeats: int,
    seed: int,
    max_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> LengthStatistics:
    """Length statistics of the model's own answers, `repeats` a prompt."""
    asked = [prompt for prompt in prompts for _ in range(repeats)]
    samples = sample_answers(model, asked, seed=seed, max_tokens=max_tokens, progress=progress)
    lengths = np.array([len(sample.output) for sample in samples]).reshape(len(prompts), repeats)
    return length_statistics(lengths, float(np.mean([sample.ended for sample in samples])))


def hidden_states(
    model: Any,
    samples: Sequence[Sample],
    layers: Sequence[int],
    *,
    max_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[int, Sequences]:
    """Hidden states of the samples at each of `layers`, numbered as Hugging Face `hidden_states[k]`.

    A sample of L output tokens has L rows: the mean over its prompt at age 0, then the state at each
    generated token's own input position, ages 1 to L - 1 (its last token is never fed in). One pass over
    each whole text: under causal attention this is what was computed while generating. `max_tokens` is the
    limit the answers were sampled with, beside the context's.
    """
    lengths = np.array([len(sample.output) for sample in samples], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    hidden_size = int(model.config.hidden_size)
    vectors = {k: np.empty((int(offsets[-1]), hidden_size), np.float32) for k in layers}
    order = sorted(range(len(samples)), key=lambda i: len(samples[i].prompt) + len(samples[i].output))
    for first in range(0, len(order), _PASS):
        chunk = order[first : first + _PASS]
        texts = [samples[i].prompt + samples[i].output[:-1] for i in chunk]
        ids = torch.zeros((len(chunk), max(map(len, texts))), dtype=torch.long)
        for row, text in enumerate(texts):  # padding on the right, which causal attention never sees
            ids[row, : len(text)] = torch.tensor(text)
        with torch.inference_mode():
            states = model(
                input_ids=ids, output_hidden_states=True, use_cache=False, logits_to_keep=1
            ).hidden_states
        for k in layers:
            block = states[k].numpy()
            for row, i in enumerate(chunk):
                prompt_end = len(samples[i].prompt)
                vectors[k][offsets[i]] = block[row, :prompt_end].mean(axis=0)
                vectors[k][offsets[i] + 1 : offsets[i + 1]] = block[row, prompt_end : len(texts[row])]
        if progress is not None:
            progress(len(chunk))
    ages = np.concatenate([np.arange(n) for n in lengths])
    prompt_tokens = np.array([len(sample.prompt) for sample in samples], np.int64)
    censored = np.array([not sample.ended for sample in samples], np.bool_)
    limits = int(model.config.max_position_embeddings) - prompt_tokens
    if max_tokens is not None:
        limits = np.minimum(limits, max_tokens)
    return {
        k: Sequences(
            vectors[k], ages, offsets, lengths, prompt_tokens=prompt_tokens, censored=censored, limits=limits
        )
        for k in layers
    }


def _generate(model: Any, ids: torch.Tensor, generator: torch.Generator, max_tokens: int) -> list[list[int]]:
    """Outputs of one batch of prompts of equal length, each up to and including its end-of-text token."""
    from transformers import DynamicCache

    outputs: list[list[int]] = [[] for _ in range(len(ids))]
    rows = list(range(len(ids)))  # the output that each row of the running batch belongs to
    open_rows = torch.ones(len(ids), dtype=torch.bool)
    cache = DynamicCache(config=model.config)
    feed = ids
    with torch.inference_mode():
        for _ in range(max_tokens):
            logits = model(input_ids=feed, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            probabilities = torch.softmax(logits[:, -1].float(), dim=-1)
            feed = torch.multinomial(probabilities, 1, generator=generator)
            for row, token in enumerate(feed[:, 0].tolist()):
                if open_rows[row]:
                    outputs[rows[row]].append(token)
            open_rows &= feed[:, 0] != model.config.eos_token_id
            left = int(open_rows.sum())
            if left == 0:
                break
            if left <= _COMPACT_AT * len(rows):
                keep = torch.nonzero(open_rows)[:, 0]
                cache.batch_select_indices(keep)
                feed, open_rows = feed[keep], open_rows[keep]
                rows = [rows[i] for i in keep.tolist()]
    return outputs
