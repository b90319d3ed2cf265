"""Prompts for the comparison of predictors, drawn with the model itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trail.report.stages import Stages
from trail.training.evaluate.draw import draw, stop_tokens

DEMO = "demo"
SPLIT_SEED = 11
"""Of the hash that says, before anything is trained, which prompts are judged on."""


@dataclass(frozen=True)
class Subject:
    """A model, how many prompts it gets, and the longest answer asked of it."""

    name: str
    model: Path
    prompts: int
    max_tokens: int


def make_prompts(subject: Subject, out: Path, stages: Stages) -> list[tuple[int, ...]]:
    """Distinct prompts for `subject`: the demo's own, or beginnings of texts that the model writes itself."""
    if subject.name == DEMO:
        from trail.demo.corpus import demo_prompts

        return list(dict.fromkeys(tuple(p.token_ids) for p in demo_prompts(subject.prompts, SPLIT_SEED)))
    config = json.loads((subject.model / "config.json").read_text(encoding="utf-8"))
    context = int(config["max_position_embeddings"])
    begin = (int(config["bos_token_id"]),)
    with stages.stage(f"{subject.name}: texts to begin from", subject.prompts):
        texts = draw(
            subject.model,
            [begin] * subject.prompts,
            n=1,
            max_tokens=[context - 1] * subject.prompts,
            max_model_len=context,
            stop_token_ids=stop_tokens(subject.model),
            seed=SPLIT_SEED,
            log=out / "vllm.log",
            keep_tokens=True,
        ).outputs()
    rng = np.random.default_rng(SPLIT_SEED)
    whole = [begin + text[:-1] for text in texts]
    # Beginnings of at most half the context, so that the context ends few answers.
    longest = [min(len(text), context // 2) for text in whole]
    return list(
        dict.fromkeys(
            text[: int(rng.integers(4, n))] for text, n in zip(whole, longest, strict=True) if n > 4
        )
    )
