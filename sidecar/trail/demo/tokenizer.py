"""The demo model's tokenizer: one token a word.

A prompt is `<s>`, the instruction's words, `<answer>`. Encoding plain text adds both marks, so the
completions API takes an instruction as it is; the chat template writes the same ids.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from trail.demo.corpus import vocabulary

PAD, BOS, EOS, ANSWER, UNKNOWN = "<pad>", "<s>", "</s>", "<answer>", "<unk>"
SPECIALS = (PAD, BOS, EOS, ANSWER, UNKNOWN)
PAD_ID, BOS_ID, EOS_ID, ANSWER_ID, UNKNOWN_ID = range(len(SPECIALS))

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<answer>{% endif %}"
)


@cache
def token_ids() -> dict[str, int]:
    """Word to id: the marks first, then the vocabulary in sorted order."""
    return {word: index for index, word in enumerate((*SPECIALS, *vocabulary()))}


def encode_words(text: str) -> tuple[int, ...]:
    """Ids of a text of the demo language, no marks added. Raises KeyError on a word that is not in it."""
    ids = token_ids()
    return tuple(ids[word] for word in text.split())


def encode_prompt(text: str) -> tuple[int, ...]:
    """Ids of an instruction as the model expects it: `<s>` text `<answer>`."""
    return (BOS_ID, *encode_words(text), ANSWER_ID)


def build_tokenizer() -> Tokenizer:
    """The same mapping as a Hugging Face tokenizer: lower case, split at white space and punctuation."""
    tokenizer = Tokenizer(models.WordLevel(token_ids(), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {ANSWER}", special_tokens=[(BOS, BOS_ID), (ANSWER, ANSWER_ID)]
    )
    return tokenizer


def save_tokenizer(directory: Path, context_tokens: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json, which transformers 4 and 5 read alike."""
    build_tokenizer().save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "model_max_length": context_tokens,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
