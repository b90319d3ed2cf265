"""Recipes: everything that decides what a predictor becomes, given its training data."""

from dataclasses import dataclass, field, replace

from trail.predict.bins import Bins, equal_bins, geometric_bins
from trail.predict.encoder import SIZES
from trail.predict.refine import PAPER, Decoding
from trail.predict.training.probe_training import ProbeRecipe
from trail.predict.training.prompt_training import PromptRecipe


@dataclass(frozen=True)
class Recipe:
    """How probe, prompt predictor and filter are made.

    `max_tokens` is where the bins end, None: at the longest answer trained on. `cut` says what an answer is
    worth that `max_tokens` or the context ended: "left-out", its length is not known; "censored", it is
    more than that; "whole", servers end it there as well. `fit_decoding`: half-life, novelty and sharpness of
    the filter are chosen on the validation prompts, a share `validation` of those trained on.
    """

    name: str
    bins: str = "geometric"
    k: int = 24
    max_tokens: float | None = None
    probe: ProbeRecipe = field(default_factory=ProbeRecipe)
    trial: ProbeRecipe = field(default_factory=ProbeRecipe)
    prompt: PromptRecipe | None = field(default_factory=PromptRecipe)
    decoding: Decoding = PAPER
    fit_decoding: bool = False
    cut: str = "censored"
    validation: float = 0.1
    held_out: float = 0.1

    def make_bins(self, longest: float, *, cut: bool = False) -> Bins:
        """The bins, for training answers of up to `longest` tokens.

        Where some were `cut` and none of the bins says so, the last is for what lies beyond the longest.
        """
        end = self.max_tokens if self.max_tokens is not None else longest + 1
        if self.bins == "equal":
            return equal_bins(self.k, end)
        if not cut or self.max_tokens is not None:
            return geometric_bins(self.k, end)
        within = geometric_bins(self.k - 1, end).edges
        return Bins((*within, float(round(end * end / max(within[-2], 1.0)) + 1)))

    def seeded(self, seed: int) -> "Recipe":
        """The same with every random choice drawn from `seed`."""
        return replace(
            self,
            probe=replace(self.probe, seed=seed),
            trial=replace(self.trial, seed=seed),
            prompt=None if self.prompt is None else replace(self.prompt, seed=seed),
        )


PROMPT = PromptRecipe(epochs=40, patience=6)

TRAIL_PAPER = Recipe(
    name="trail-paper",
    bins="equal",
    k=10,
    max_tokens=512.0,
    trial=ProbeRecipe(epochs=2, batch_size=512),
    prompt=PROMPT,
    cut="left-out",
)
"""The paper's: 10 equal bins over 0 to 512 tokens, its probe, optimiser, schedule and refinement."""

DEFAULT = Recipe(
    name="default",
    probe=ProbeRecipe(batch_size=512, learning_rate=2e-3, position=True, patience=4),
    trial=ProbeRecipe(epochs=3, batch_size=512, learning_rate=2e-3, position=True),
    prompt=PROMPT,
    decoding=Decoding(filter="pool", point="median"),
    fit_decoding=True,
)
"""Position inputs, geometric bins, a filter that counts shared evidence once, cut answers censored."""

PRETRAINED_LEARNING_RATE = 5e-5
PRETRAINED_EPOCHS = 8


def with_encoder(recipe: PromptRecipe, encoder: str) -> PromptRecipe:
    """`recipe` with one of `encoder.SIZES` by its name, or with a pretrained checkpoint, to be fine-tuned."""
    if encoder in SIZES:
        return replace(recipe, encoder=SIZES[encoder])
    return replace(
        recipe, encoder=encoder, learning_rate=PRETRAINED_LEARNING_RATE, epochs=PRETRAINED_EPOCHS, patience=2
    )


RECIPES = {recipe.name: recipe for recipe in (DEFAULT, TRAIL_PAPER)}
