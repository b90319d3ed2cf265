"""The prompt predictor: a small BERT-type encoder from prompt tokens to bins of the whole output length.

It reads the served model's own token ids, so no second tokenizer is needed. Importing this module
imports transformers, which takes seconds; whoever can do without it imports this late.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from trail.predict.bins import Bins

PAD, CLS, UNKNOWN = 0, 1, 2
"""The encoder's own ids; the model's token t is the encoder's `t + FIRST_TOKEN`."""
FIRST_TOKEN = 3

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

_BATCH_PROMPTS = 32


@dataclass(frozen=True)
class EncoderSize:
    """Shape of the encoder. `max_tokens` is what is read of a prompt: its first and last halves."""

    layers: int = 2
    hidden_size: int = 128
    heads: int = 4
    intermediate_size: int = 256
    max_tokens: int = 256


class PromptPredictor:
    """Inference on CPU in float32 with a transformers BertForSequenceClassification of `bins.k` labels."""

    def __init__(self, encoder: Any, bins: Bins) -> None:
        config = encoder.config
        if config.num_labels != bins.k:
            raise ValueError(f"the prompt predictor has {config.num_labels} classes, the bins are {bins.k}")
        self.bins = bins
        self.encoder = encoder.float().eval()
        self.vocab_size = int(config.vocab_size) - FIRST_TOKEN
        self._max_tokens = int(config.max_position_embeddings) - 1  # one position is CLS

    @classmethod
    def untrained(
        cls, vocab_size: int, bins: Bins, size: EncoderSize | None = None, *, seed: int = 0
    ) -> "PromptPredictor":
        """An encoder with random weights for a model of `vocab_size` tokens."""
        size = size or EncoderSize()
        config = BertConfig(
            vocab_size=vocab_size + FIRST_TOKEN,
            num_labels=bins.k,
            num_hidden_layers=size.layers,
            hidden_size=size.hidden_size,
            num_attention_heads=size.heads,
            intermediate_size=size.intermediate_size,
            max_position_embeddings=size.max_tokens + 1,
            type_vocab_size=1,
            pad_token_id=PAD,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(BertForSequenceClassification(config), bins)

    def call_between_layers(self, call: Callable[[], object]) -> None:
        """Have `call` run after every layer of a prediction, in its thread."""

        def hook(*_: object) -> None:  # what a hook returns would take the place of the layer's output
            call()

        for module in self.encoder.modules():
            if next(module.children(), None) is None:
                module.register_forward_hook(hook)

    def predict(self, prompts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Probabilities float32 [n, k] of the whole output length's bin, for n prompts of token ids.

        Prompts longer than the encoder reads are cut in the middle; ids outside the vocabulary count as
        unknown tokens; an empty prompt is answered from the start token alone.
        """
        result = np.empty((len(prompts), self.bins.k), dtype=np.float32)
        # Neighbours in length share a batch, so that little of it is padding.
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        with torch.inference_mode():
            for begin in range(0, len(order), _BATCH_PROMPTS):
                chosen = order[begin : begin + _BATCH_PROMPTS]
                logits = self.logits([prompts[i] for i in chosen])
                result[chosen] = torch.softmax(logits, dim=1).numpy()
        return result

    def logits(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits float32 [n, k] for one batch of at least one prompt; the training's forward pass."""
        rows = [self._encode(prompt) for prompt in prompts]
        longest = max(len(row) for row in rows)
        ids = np.full((len(rows), longest), PAD, dtype=np.int64)
        for row, encoded in zip(ids, rows, strict=True):
            row[: len(encoded)] = encoded
        batch = torch.from_numpy(ids)
        output = self.encoder(input_ids=batch, attention_mask=(batch != PAD).long())
        logits: torch.Tensor = output.logits
        return logits

    def save(self, directory: Path) -> None:
        """Write `config.json` and `model.safetensors` as transformers names them; makes the directory."""
        directory.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.contiguous() for name, tensor in self.encoder.state_dict().items()}
        save_file(state, str(directory / WEIGHTS_FILE), metadata={"format": "pt"})
        (directory / CONFIG_FILE).write_text(self.encoder.config.to_json_string(use_diff=True))

    @classmethod
    def read(cls, directory: Path, bins: Bins) -> "PromptPredictor":
        """Read what `save` wrote; no network, no code from the directory.

        Raises OSError, ValueError, or whatever transformers and torch raise for files that are no encoder
        or do not fit each other or the bins.
        """
        values = json.loads((directory / CONFIG_FILE).read_text())
        state = load_file(str(directory / WEIGHTS_FILE))
        for name, tensor in state.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name} holds NaN or infinity")
        config = _checked_config(values, state, bins)
        encoder = BertForSequenceClassification(config)
        encoder.load_state_dict(state, strict=True)
        predictor = cls(encoder, bins)
        # A configuration can pass every check above and still describe an encoder that cannot run.
        if not np.all(np.isfinite(predictor.predict([[0]]))):
            raise ValueError("the prompt predictor answers NaN")
        return predictor

    def _encode(self, prompt: Sequence[int]) -> npt.NDArray[np.int64]:
        tokens = np.asarray(prompt, dtype=np.int64)
        if len(tokens) > self._max_tokens:
            head = self._max_tokens // 2
            tokens = np.concatenate([tokens[:head], tokens[len(tokens) - (self._max_tokens - head) :]])
        known = (tokens >= 0) & (tokens < self.vocab_size)
        return np.concatenate([[CLS], np.where(known, tokens + FIRST_TOKEN, UNKNOWN)]).astype(np.int64)


def _checked_config(values: Any, state: Mapping[str, torch.Tensor], bins: Bins) -> Any:
    """The configuration, once its sizes are those of the weights; a wrong one could ask for any memory."""
    if not isinstance(values, dict) or values.get("num_labels", bins.k) != bins.k:
        raise ValueError(f"{CONFIG_FILE} is no configuration of a classifier of {bins.k} classes")
    config = BertConfig.from_dict(values)
    layers = {name.split(".")[3] for name in state if name.startswith("bert.encoder.layer.")}
    words = state["bert.embeddings.word_embeddings.weight"]
    sizes = {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "num_hidden_layers": len(layers),
        "intermediate_size": state["bert.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": state["bert.embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": state["bert.embeddings.token_type_embeddings.weight"].shape[0],
    }
    for name, size in sizes.items():
        if getattr(config, name) != size:
            raise ValueError(f"{CONFIG_FILE} says {name} {getattr(config, name)}, the weights have {size}")
    return config
