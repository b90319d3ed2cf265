"""stories260K, a real small model from the optional data folder: its prompts, and a predictor for it."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.demo_model.own_answers import PredictorSpec, build_predictor
from trail.predict.training.split import held_out_prompts
from trail.report.stages import Stages, shown
from trail.simulation.cache import Cache

MODEL = "stories260K"
BENCH_SHARE = 0.4
"""Share of the prompts that no training sees: the benchmark sends these."""
ANSWERS_PER_PROMPT = 4
SPLIT_SEED = 11
SPEC = PredictorSpec(layers=(3, 4), max_tokens=512)


@dataclass(frozen=True)
class Stories:
    """Where the model, the benchmark's prompts and the predictor lie."""

    model: Path
    prompts: Path
    predictor: Path


def prepare(shared: Path, out: Path) -> Stories:
    """Split the prompts and train the predictor under `out`, unless an earlier call did the same.

    Raises FileNotFoundError where `shared` lacks the model or its prompts.
    """
    model = shared / "data" / "models" / "stories260K-f32"
    source = shared / "data" / "prompts" / "story_prefix_prompts.jsonl.gz"
    for needed in (model / "config.json", source):
        if not needed.is_file():
            raise FileNotFoundError(needed)
    with gzip.open(source, "rt", encoding="utf-8") as lines_in:
        prompts = [tuple(json.loads(line)["prompt_token_ids"]) for line in lines_in]
    for_bench = held_out_prompts(prompts, BENCH_SHARE, SPLIT_SEED)
    own = [prompts[i] for i in np.flatnonzero(~for_bench)]
    key = Cache(out, build_predictor.__module__).key(own, ANSWERS_PER_PROMPT, SPEC, model)
    found = Stories(model, out / "bench-prompts.jsonl", out / f"predictor-{key}")
    lines = (json.dumps({"prompt_token_ids": prompts[i]}) for i in np.flatnonzero(for_bench))
    found.prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if not (found.predictor / "trail.json").is_file():
        with shown() as stages:
            _train(found, own, stages)
    return found


def _train(stories: Stories, prompts: list[tuple[int, ...]], stages: Stages) -> None:
    from benchmarks.demo_model.train_model import load_model

    build_predictor(
        load_model(stories.model),
        stories.model,
        stories.predictor,
        prompts=[prompt for prompt in prompts for _ in range(ANSWERS_PER_PROMPT)],
        spec=SPEC,
        stages=stages,
        model_id=MODEL,
    )
