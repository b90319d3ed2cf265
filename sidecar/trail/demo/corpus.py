"""The demo language: instructions, and answers that end by themselves after a number of parts.

An answer first states its plan ("this story has three long parts ."), then writes its parts under
numbered headers ("part two of three :") and closes ("the end ."). The instruction makes some plans
likelier than others but fixes none, so a predictor that reads the instruction alone knows part of the
length, and one that follows the answer learns the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from trail.demo import words

SIZES = ("short", "medium", "long")
#: Most parts of each size, so that answers stay below 512 tokens.
_MOST_PARTS = (20, 20, 14)
#: Sentences in one part, for each size: possible numbers and their probabilities.
_SENTENCES = (((1,), (1.0,)), ((1, 2, 3), (0.25, 0.5, 0.25)), ((2, 3, 4), (0.25, 0.5, 0.25)))


@dataclass(frozen=True)
class Kind:
    """A kind of answer: what it is called, what its parts are called, how long they tend to be."""

    name: str
    unit: str
    sizes: tuple[float, float, float]  # probabilities of SIZES


@dataclass(frozen=True)
class LengthWord:
    """A word in the instruction that speaks of length.

    The number of parts has a log-normal density of median `parts` and log-scale `spread`, cut off at the
    most parts an answer can have.
    """

    text: str  # "" where the instruction does not say
    weight: float
    parts: float
    spread: float


KINDS = (
    Kind("story", "part", (0.1, 0.3, 0.6)),
    Kind("letter", "paragraph", (0.3, 0.4, 0.3)),
    Kind("report", "section", (0.1, 0.3, 0.6)),
    Kind("list", "item", (0.9, 0.1, 0.0)),
    Kind("guide", "step", (0.4, 0.4, 0.2)),
    Kind("poem", "verse", (0.7, 0.3, 0.0)),
)

LENGTH_WORDS = (
    LengthWord("brief", 0.29, 1.0, 0.85),
    LengthWord("short", 0.26, 1.1, 1.1),
    LengthWord("", 0.17, 2.2, 1.5),
    LengthWord("detailed", 0.05, 8.0, 1.2),
    LengthWord("long", 0.10, 18.0, 0.9),
    LengthWord("very long", 0.13, 25.0, 0.6),
)


@dataclass(frozen=True)
class Instruction:
    """What a user asks for: the text, and what the answer is drawn from."""

    text: str
    kind: Kind
    length: LengthWord
    topic: str


@dataclass(frozen=True)
class Prompt:
    """A prompt of the demo distribution: ids as the model expects them, plain text, kind of answer."""

    token_ids: tuple[int, ...]
    text: str
    kind: str


def draw_instruction(rng: np.random.Generator) -> Instruction:
    """One instruction of the demo distribution."""
    kind = KINDS[rng.integers(len(KINDS))]
    length = LENGTH_WORDS[rng.choice(len(LENGTH_WORDS), p=_length_weights())]
    topic = _pick(rng, words.TOPICS)
    text = [_pick(rng, words.OPENERS), "a", length.text, kind.name, "about the", topic]
    if rng.random() < 0.3:
        text += ["and the", _pick(rng, words.TOPICS)]
    if rng.random() < 0.35:
        text += ["for a", _pick(rng, words.AUDIENCES)]
    if rng.random() < 0.3:
        text += ["set in the", _pick(rng, words.PLACES)]
    text.append(".")
    if rng.random() < 0.3:
        text += ["keep it", _pick(rng, words.TONES), "and", _pick(rng, words.TONES), "."]
    if rng.random() < 0.2:
        text += ["it is for my", _pick(rng, words.RELATIVES), "who likes the", _pick(rng, words.NOUNS), "."]
    return Instruction(" ".join(part for part in text if part), kind, length, topic)


def draw_answer(rng: np.random.Generator, instruction: Instruction) -> str:
    """One answer to `instruction`, without the end-of-text mark."""
    size = int(rng.choice(len(SIZES), p=instruction.kind.sizes))
    parts = 1 + int(rng.choice(_MOST_PARTS[size], p=_part_weights(instruction.length, _MOST_PARTS[size])))
    unit = instruction.kind.unit
    out = [
        f"this {instruction.kind.name} has {words.NUMBERS[parts - 1]} {SIZES[size]} {unit}"
        + ("s ." if parts > 1 else " .")
    ]
    for part in range(parts):
        out.append(f"{unit} {words.NUMBERS[part]} of {words.NUMBERS[parts - 1]} :")
        counts, weights = _SENTENCES[size]
        for _ in range(int(rng.choice(counts, p=weights))):
            out.append(_sentence(rng, instruction.topic, _mood(parts - 1 - part), words.ADVERBS[size]))
    out.append("the end .")
    return " ".join(out)


def demo_prompts(n: int, seed: int) -> list[Prompt]:
    """`n` prompts of the demo distribution, ready to send, from a random stream that no training uses.

    The build draws from seeds 1 (to train the predictor) and 2 (to measure lengths): measure with others.
    """
    from trail.demo.tokenizer import encode_prompt

    rng = np.random.default_rng([seed, 1])
    drawn = [draw_instruction(rng) for _ in range(n)]
    return [Prompt(encode_prompt(i.text), i.text, i.kind.name) for i in drawn]


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word that instructions and answers can hold, sorted."""
    found: set[str] = set()
    lists = (
        words.GRAMMAR,
        words.NUMBERS, words.OPENERS, words.AUDIENCES, words.PLACES, words.TONES, words.RELATIVES,
        words.TOPICS, words.NOUNS, words.NAMES, words.VERBS, *words.ADJECTIVES, *words.ADVERBS, SIZES,
        [length.text for length in LENGTH_WORDS], [kind.name for kind in KINDS],
        [kind.unit for kind in KINDS], [f"{kind.unit}s" for kind in KINDS],
    )  # fmt: skip
    for entries in lists:
        for entry in entries:
            found.update(entry.split())
    return tuple(sorted(found))


def _sentence(rng: np.random.Generator, topic: str, mood: tuple[str, ...], adverbs: tuple[str, ...]) -> str:
    subject = topic if rng.random() < 0.5 else _pick(rng, words.NOUNS)
    form = rng.integers(3)
    if form == 0:
        return (
            f"the {_pick(rng, mood)} {subject} {_pick(rng, words.VERBS)} "
            f"the {_pick(rng, mood)} {_pick(rng, words.NOUNS)} ."
        )
    if form == 1:
        return (
            f"{_pick(rng, adverbs)} , the {_pick(rng, mood)} {subject} {_pick(rng, words.VERBS)} "
            f"the {_pick(rng, words.PLACES)} ."
        )
    return (
        f"{_pick(rng, words.NAMES)} {_pick(rng, adverbs)} {_pick(rng, words.VERBS)} "
        f"the {_pick(rng, mood)} {subject} near the {_pick(rng, words.PLACES)} ."
    )


def _mood(parts_left: int) -> tuple[str, ...]:
    """Adjectives of a part with `parts_left` parts after it."""
    return words.ADJECTIVES[int(np.searchsorted((0, 1, 3, 6), parts_left))]


@cache
def _length_weights() -> tuple[float, ...]:
    total = sum(word.weight for word in LENGTH_WORDS)
    return tuple(word.weight / total for word in LENGTH_WORDS)


@cache
def _part_weights(length: LengthWord, most: int) -> tuple[float, ...]:
    parts = np.arange(1, most + 1)
    density = np.exp(-((np.log(parts) - np.log(length.parts)) ** 2) / (2 * length.spread**2)) / parts
    return tuple((density / density.sum()).tolist())


def _pick(rng: np.random.Generator, entries: tuple[str, ...]) -> str:
    return entries[rng.integers(len(entries))]
