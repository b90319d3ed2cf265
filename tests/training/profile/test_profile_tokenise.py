"""Prompts become the token ids that the model would be given by a server."""

import json
import shutil
from pathlib import Path

import pytest

from trail.bench.workload import PromptFileError
from trail.demo import demo_model_dir
from trail.demo.corpus import demo_prompts
from trail.demo.tokenizer import ANSWER_ID, BOS_ID, encode_words, token_ids
from trail.serving.setup import SetupError
from trail.training.profile.data import DataPrompt
from trail.training.profile.tokenise import tokenised, within_context
from trail.training.recording.prompts import TokenPrompt

FILE = Path("prompts.jsonl")
VOCABULARY = len(token_ids())
DRAWN = demo_prompts(3, 7)


def ids_of(prompts: list[DataPrompt], model: Path | None = None) -> list[TokenPrompt]:
    return tokenised(prompts, FILE, model or demo_model_dir(), VOCABULARY, trust_remote_code=False)


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    """The demo model's tokenizer and config, to be changed."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo_model_dir() / name, tmp_path / name)
    return tmp_path


def change_template(model: Path, template: str | None) -> None:
    file = model / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings["chat_template"] = template
    if template is None:
        del settings["chat_template"]
    file.write_text(json.dumps(settings))


def chat(*contents: str) -> DataPrompt:
    return DataPrompt(4, messages=tuple({"role": "user", "content": content} for content in contents))


def test_texts_chats_and_token_ids_of_one_prompt_are_the_same_prompt() -> None:
    first = DRAWN[0]
    given = [
        DataPrompt(1, text=first.text, kind="story"),
        DataPrompt(2, messages=({"role": "user", "content": first.text},)),
        DataPrompt(3, token_ids=first.token_ids),
    ]
    assert [p.token_ids for p in ids_of(given)] == [first.token_ids] * 3
    assert [p.kind for p in ids_of(given)] == ["story", None, None]


def test_the_order_of_a_mixed_data_set_is_kept() -> None:
    given = []
    for drawn in DRAWN * 2:
        given += [DataPrompt(1, text=drawn.text), chat(drawn.text), DataPrompt(1, token_ids=drawn.token_ids)]
    assert [p.token_ids for p in ids_of(given)] == [d.token_ids for d in DRAWN * 2 for _ in range(3)]


def test_without_a_chat_template_messages_are_joined(model_copy: Path) -> None:
    change_template(model_copy, None)
    one, two = DRAWN[0].text, DRAWN[1].text
    expected = (BOS_ID, *encode_words(one), *encode_words(two), ANSWER_ID)
    assert ids_of([chat(one, "", two)], model_copy)[0].token_ids == expected


def test_a_template_that_refuses_is_named_with_the_line(model_copy: Path) -> None:
    change_template(model_copy, "{{ raise_exception('no system turns') }}")
    with pytest.raises(PromptFileError, match=r"line 4: the model's chat template refuses it .*no system"):
        ids_of([chat("a story")], model_copy)


def test_token_ids_need_no_tokenizer(tmp_path: Path) -> None:
    assert ids_of([DataPrompt(1, token_ids=(1, 2))], tmp_path)[0].token_ids == (1, 2)
    with pytest.raises(SetupError, match=r"the tokenizer of .* cannot be loaded .* prompt_token_ids"):
        ids_of([DataPrompt(1, text="a")], tmp_path)


def test_token_ids_of_another_model_are_refused() -> None:
    with pytest.raises(PromptFileError, match=rf"line 9: token {VOCABULARY} is outside the model's vocab"):
        ids_of([DataPrompt(9, token_ids=(1, VOCABULARY))])


def test_a_prompt_leaves_room_for_a_token() -> None:
    prompts = [TokenPrompt((1,) * n) for n in (3, 4, 5)]
    assert within_context(prompts, 5) == prompts[:2]
