"""The prompt predictor: a BERT-type encoder from prompt tokens to bins of the whole output length.

Either a small one, trained from random weights on the served model's own token ids, or a pretrained
checkpoint that reads the prompt's text with its own tokenizer. Importing this module imports transformers,
which takes seconds; whoever can do without it imports this late.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
)

from trail.predict.bins import Bins
from trail.predict.encoder import BASE, EncoderSize
from trail.predict.prompt_tokens import (
    ENCODER_TOKENIZER_FILE,
    FIRST_TOKEN,
    MODEL_TOKENIZER_FILE,
    PAD,
    OwnTokens,
    PromptTokens,
    Retokenised,
    read_tokenizer,
)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PRETRAINED_MAX_TOKENS = 256
"""Of the encoder's own tokens: a prompt's cost grows with them, and its ends say most of its length."""

_BATCH_PROMPTS = 32


class PromptPredictor:
    """Inference on CPU in float32 with a transformers sequence classifier of `bins.k` labels."""

    def __init__(self, encoder: Any, bins: Bins, tokens: PromptTokens | None = None) -> None:
        config = encoder.config
        if config.num_labels != bins.k:
            raise ValueError(f"the prompt predictor has {config.num_labels} classes, the bins are {bins.k}")
        self.bins = bins
        self.encoder = encoder.float().eval()
        self.tokens = tokens if tokens is not None else _own_tokens(config)

    @classmethod
    def untrained(
        cls, vocab_size: int, bins: Bins, size: EncoderSize = BASE, *, seed: int = 0
    ) -> "PromptPredictor":
        """An encoder with random weights for a model of `vocab_size` tokens."""
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

    @classmethod
    def pretrained(
        cls, checkpoint: str, model_tokenizer: Path, bins: Bins, *, seed: int = 0
    ) -> "PromptPredictor":
        """The encoder `checkpoint` (a directory, or a name of the Hugging Face hub) with a new classifier.

        `model_tokenizer` is the served model's `tokenizer.json`. No code from the checkpoint is run. Raises
        OSError and ValueError where the checkpoint or a tokenizer cannot be used.
        """
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ValueError(f"{checkpoint} has no fast tokenizer (tokenizer.json); choose another encoder")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of the new classifier
            encoder = AutoModelForSequenceClassification.from_pretrained(
                checkpoint, num_labels=bins.k, trust_remote_code=False
            )
        longest = min(int(encoder.config.max_position_embeddings), PRETRAINED_MAX_TOKENS)
        pad = tokenizer.pad_token_id
        tokens = Retokenised(
            read_tokenizer(model_tokenizer),
            backend,
            max_tokens=longest,
            pad=int(pad) if pad is not None else 0,
        )
        return cls(encoder, bins, tokens)

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
        rows = [self.tokens.encode(prompt) for prompt in prompts]
        longest = max(len(row) for row in rows)
        ids = np.full((len(rows), longest), self.tokens.pad, dtype=np.int64)
        read = np.zeros((len(rows), longest), dtype=np.int64)
        for row, mask, encoded in zip(ids, read, rows, strict=True):
            row[: len(encoded)] = encoded
            mask[: len(encoded)] = 1
        output = self.encoder(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(read))
        logits: torch.Tensor = output.logits
        return logits

    def save(self, directory: Path) -> list[str]:
        """Write `config.json` and `model.safetensors` as transformers names them, and the tokenizers where
        the encoder has its own; makes the directory. The names of the files."""
        directory.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.contiguous() for name, tensor in self.encoder.state_dict().items()}
        save_file(state, str(directory / WEIGHTS_FILE), metadata={"format": "pt"})
        (directory / CONFIG_FILE).write_text(self.encoder.config.to_json_string(use_diff=True))
        return [CONFIG_FILE, WEIGHTS_FILE, *self.tokens.save(directory)]

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
        tokens: PromptTokens | None = None
        if (directory / ENCODER_TOKENIZER_FILE).is_file():
            tokens = Retokenised(
                read_tokenizer(directory / MODEL_TOKENIZER_FILE),
                read_tokenizer(directory / ENCODER_TOKENIZER_FILE),
                max_tokens=min(int(config.max_position_embeddings), PRETRAINED_MAX_TOKENS),
                pad=int(config.pad_token_id or 0),
            )
        encoder = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        encoder.load_state_dict(state, strict=True)
        predictor = cls(encoder, bins, tokens)
        # A configuration can pass every check above and still describe an encoder that cannot run.
        if not np.all(np.isfinite(predictor.predict([[0]]))):
            raise ValueError("the prompt predictor answers NaN")
        return predictor


def _own_tokens(config: Any) -> OwnTokens:
    """One of the encoder's positions is the start token's."""
    return OwnTokens(int(config.vocab_size) - FIRST_TOKEN, int(config.max_position_embeddings) - 1)


def _checked_config(values: Any, state: Mapping[str, torch.Tensor], bins: Bins) -> Any:
    """The configuration, once the weights are those it describes; a wrong one could ask for any memory."""
    if not isinstance(values, dict) or values.get("num_labels", bins.k) != bins.k:
        raise ValueError(f"{CONFIG_FILE} is no configuration of a classifier of {bins.k} classes")
    config = AutoConfig.for_model(**{"model_type": "bert", **values})
    if config.num_hidden_layers > len(state):
        raise ValueError(
            f"{CONFIG_FILE} says num_hidden_layers {config.num_hidden_layers}, the weights are"
            f" {len(state)} tensors"
        )
    try:
        with torch.device("meta"):  # shapes without memory
            described = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    except (RuntimeError, OverflowError) as error:  # sizes whose product no number holds
        raise ValueError(f"{CONFIG_FILE} describes no encoder: {error}") from error
    for name, tensor in described.state_dict().items():
        if name not in state or state[name].shape != tensor.shape:
            found = list(state[name].shape) if name in state else "missing"
            raise ValueError(
                f"{CONFIG_FILE} describes {name} {list(tensor.shape)}, in the weights it is {found}"
            )
    return config
