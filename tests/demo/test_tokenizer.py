"""The tokenizer that transformers loads agrees with the ids the demo model was trained on."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from trail.demo import corpus, tokenizer


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_tokenizer(directory, 1024)
    return AutoTokenizer.from_pretrained(directory)


def test_encoding_an_instruction_gives_the_prompt(loaded: Any) -> None:
    for prompt in corpus.demo_prompts(200, seed=1):
        assert tuple(loaded(prompt.text).input_ids) == prompt.token_ids


def test_the_chat_template_gives_the_same_prompt(loaded: Any) -> None:
    for prompt in corpus.demo_prompts(50, seed=2):
        text = loaded.apply_chat_template(
            [{"role": "user", "content": prompt.text}], add_generation_prompt=True, tokenize=False
        )
        assert tuple(loaded(text, add_special_tokens=False).input_ids) == prompt.token_ids


def test_decoding_gives_the_text_back(loaded: Any) -> None:
    for prompt in corpus.demo_prompts(200, seed=3):
        assert loaded.decode(prompt.token_ids, skip_special_tokens=True) == prompt.text


def test_ordinary_spelling_is_accepted(loaded: Any) -> None:
    assert (
        loaded("Write a Story about the river.").input_ids
        == loaded("write a story about the river .").input_ids
    )


def test_marks_have_the_ids_the_model_config_names(loaded: Any) -> None:
    assert loaded.eos_token_id == tokenizer.EOS_ID
    assert loaded.bos_token_id == tokenizer.BOS_ID
    assert loaded.pad_token_id == tokenizer.PAD_ID
    assert len(loaded) == len(tokenizer.token_ids())
