"""How a prompt's token ids become an encoder's: shifted, or read anew as text with a tokenizer of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

PAD, CLS, UNKNOWN = 0, 1, 2
"""Ids of an encoder that reads the model's own tokens; the model's token t is its `t + FIRST_TOKEN`."""
FIRST_TOKEN = 3

MODEL_TOKENIZER_FILE = "model-tokenizer.json"
ENCODER_TOKENIZER_FILE = "encoder-tokenizer.json"


class PromptTokens(Protocol):
    """From the served model's token ids to the encoder's."""

    pad: int

    def encode(self, prompt: Sequence[int]) -> npt.NDArray[np.int64]:
        """At least one id [m]. A prompt that is longer than the encoder reads is cut in the middle."""
        ...

    def save(self, directory: Path) -> list[str]:
        """Write what `read_tokens` needs beside the encoder; the names of the files."""
        ...


@dataclass(frozen=True)
class OwnTokens:
    """The model's own tokens, of which there are `vocab_size`, after a start token; `max_tokens` are read."""

    vocab_size: int
    max_tokens: int
    pad: int = PAD

    def encode(self, prompt: Sequence[int]) -> npt.NDArray[np.int64]:
        """Ids outside the vocabulary count as unknown; an empty prompt is the start token alone."""
        tokens = _both_ends(np.asarray(prompt, dtype=np.int64), self.max_tokens)
        known = (tokens >= 0) & (tokens < self.vocab_size)
        return np.concatenate([[CLS], np.where(known, tokens + FIRST_TOKEN, UNKNOWN)]).astype(np.int64)

    def save(self, directory: Path) -> list[str]:  # noqa: ARG002 - the encoder's configuration says it all
        """Nothing."""
        return []


class Retokenised:
    """Text of the model's tokens, read with the tokenizer that the encoder was pretrained with.

    At most `max_tokens` of the encoder's tokens are read, its special ones included.
    """

    def __init__(self, model: Tokenizer, encoder: Tokenizer, *, max_tokens: int, pad: int) -> None:
        self._model, self._encoder, self._max_tokens, self.pad = model, encoder, max_tokens, pad
        # A tokenizer file may ask for either, and both are done here.
        self._encoder.no_truncation()
        self._encoder.no_padding()

    def encode(self, prompt: Sequence[int]) -> npt.NDArray[np.int64]:
        """Ids that the model's tokenizer does not know are left out."""
        known = self._model.get_vocab_size()
        text = self._model.decode([int(t) for t in prompt if 0 <= t < known], skip_special_tokens=True)
        ids = np.asarray(self._encoder.encode(text).ids, dtype=np.int64)
        return _both_ends(ids, self._max_tokens) if len(ids) else np.array([self.pad], dtype=np.int64)

    def save(self, directory: Path) -> list[str]:
        """Both tokenizers, as the tokenizers library writes them."""
        for name, tokenizer in ((MODEL_TOKENIZER_FILE, self._model), (ENCODER_TOKENIZER_FILE, self._encoder)):
            (directory / name).write_text(tokenizer.to_str(), encoding="utf-8")
        return [MODEL_TOKENIZER_FILE, ENCODER_TOKENIZER_FILE]


def read_tokenizer(file: Path) -> Tokenizer:
    """A `tokenizer.json`. Raises OSError, and ValueError for another file."""
    text = file.read_text(encoding="utf-8")
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise ValueError(f"{file} is no tokenizer: {error}") from error


def _both_ends(tokens: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    if len(tokens) <= most:
        return tokens
    head = most // 2
    return np.concatenate([tokens[:head], tokens[len(tokens) - (most - head) :]])
