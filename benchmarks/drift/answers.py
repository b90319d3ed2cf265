"""The demo model's own answers, with what its predictor says along each of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trail.predict.bins import Bins
from trail.predict.manifest import Manifest, read_manifest
from trail.predict.refine import Refiner
from trail.report.stages import Stages

MAX_TOKENS = 640
_ARRAYS = ("outputs", "ages", "offsets", "lengths", "ended", "prompt_said")


@dataclass(frozen=True)
class Answers:
    """Recorded answers, one after another: answer i owns rows offsets[i] to offsets[i + 1].

    `outputs` float32 [N, k] are the probe's probabilities at `ages` int [N] generated tokens; `lengths` int
    [n] whole output lengths in tokens, `ended` bool [n] whether by themselves, `prompt_said` float [n] the
    prompt predictor's whole length in tokens.
    """

    manifest: Manifest
    outputs: npt.NDArray[np.float32]
    ages: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    ended: npt.NDArray[np.bool_]
    prompt_said: npt.NDArray[np.float64]

    @property
    def limit(self) -> int:
        """The most tokens an answer could have."""
        return MAX_TOKENS

    @property
    def bins(self) -> Bins:
        """The predictor's bins."""
        return self.manifest.bins

    def save(self, path: Path) -> None:
        """Writes the arrays, not the manifest."""
        np.savez(path, **{name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: Path) -> "Answers":
        """What `save` wrote, of the demo predictor. Raises OSError, KeyError, ValueError."""
        from trail.demo import demo_predictor_dir

        with np.load(path, allow_pickle=False) as file:
            return cls(read_manifest(demo_predictor_dir()), *(file[name] for name in _ARRAYS))


def record_answers(count: int, seed: int, stages: Stages) -> Answers:
    """One answer to each of `count` prompts of the demo distribution.

    `seed` draws prompts and answers; the demo predictor was trained with seed 1.
    """
    import torch

    from benchmarks.demo_model.own_answers import PredictorSpec, sampled_corpus
    from benchmarks.demo_model.train_model import load_model
    from trail.demo import demo_model_dir, demo_predictor_dir
    from trail.demo.corpus import demo_prompts
    from trail.predict.artefact import load_probe, load_prompt
    from trail.predict.training.probe_training import predict_rows

    torch.set_num_threads(1)
    path = demo_predictor_dir()
    manifest = read_manifest(path)
    if manifest.layer is None:
        raise ValueError(f"{path} has no probe")
    prompts = [prompt.token_ids for prompt in demo_prompts(count, seed)]
    spec = PredictorSpec(layers=(manifest.layer,), max_tokens=MAX_TOKENS, seed=seed)
    corpus = sampled_corpus(load_model(demo_model_dir()), prompts, spec, stages)
    sequences = corpus.sequences(manifest.layer)
    prompt = load_prompt(path, manifest)
    if prompt is None:
        raise ValueError(f"{path} has no prompt predictor")
    with stages.stage("what the predictor says", 1) as advance:
        outputs = predict_rows(load_probe(path, manifest), sequences.rows())
        said = Refiner(manifest.bins, manifest.decoding).point(prompt.predict(prompts))
        advance(1)
    return Answers(
        manifest=manifest,
        outputs=outputs,
        ages=sequences.ages.astype(np.int64),
        offsets=np.asarray(sequences.offsets, np.int64),
        lengths=np.asarray(corpus.lengths, np.int64),
        ended=~corpus.censored,
        prompt_said=said,
    )
