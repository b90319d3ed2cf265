"""Prompts are read in the formats that data sets come in; what cannot be read is named with its line."""

import gzip
import json
from pathlib import Path

import pytest

from trail.bench.workload import PromptFileError
from trail.training.profile.data import NO_PROMPT, NOT_TEXT, DataPrompt, read_data, skipped_text


def written(tmp_path: Path, *entries: object, array: bool = False, name: str = "data.jsonl") -> Path:
    file = tmp_path / name
    text = json.dumps(entries, indent=1) if array else "".join(json.dumps(e) + "\n" for e in entries)
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return file


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def test_json_lines_hold_token_ids_or_text_and_a_kind(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(
        '\n{"prompt_token_ids": [1, 2], "prompt": "ab", "kind": "list"}\n\n{"prompt": "x", "time": 3}\n'
    )
    assert read_data(file).prompts == [
        DataPrompt(2, token_ids=(1, 2), kind="list"),
        DataPrompt(4, text="x"),
    ]


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("name", ["data.json", "data.json.gz"])
def test_sharegpt_is_taken_up_to_the_first_answer(tmp_path: Path, array: bool, name: str) -> None:
    conversation = [
        {"from": "system", "value": "be brief"},
        {"from": "human", "value": "hello"},
        {"from": "human", "value": "there"},
        {"from": "gpt", "value": "hi"},
        {"from": "human", "value": "not this"},
    ]
    other = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    starts_with_answer = [{"from": "bing", "value": "hi"}, {"from": "human", "value": "hello"}]
    file = written(
        tmp_path,
        {"id": 1, "conversations": conversation},
        {"conversations": starts_with_answer},
        {"conversations": []},
        {"conversations": other},
        array=array,
        name=name,
    )
    data = read_data(file)
    system = {"role": "system", "content": "be brief"}
    assert [p.messages for p in data.prompts] == [(system, user("hello"), user("there")), (user("x"),)]
    assert data.skipped == {NO_PROMPT: 2}
    assert skipped_text(data.skipped) == f" (left out: 2 with {NO_PROMPT})"
    if not array:
        assert [p.line for p in data.prompts] == [1, 4]


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\n')
    assert [p.text for p in read_data(file).prompts] == ["a"]


def test_alpaca_joins_instruction_and_input(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {"instruction": "add", "input": "1 2", "output": "3"},
        {"instruction": "sing", "input": "", "output": "la"},
        {"instruction": "hum", "output": "m"},
        array=True,
    )
    contents = [p.messages for p in read_data(file).prompts]
    assert contents == [(user("add\n\n1 2"),), (user("sing"),), (user("hum"),)]


def test_openai_batches_hold_chats_or_completions(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    call = {"role": "assistant", "content": None, "tool_calls": [1]}
    picture = [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "what is it"}]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    file = written(
        tmp_path,
        {"custom_id": "1", "body": {"messages": [user("hi"), call], "tools": tools, "max_tokens": 3}},
        {"body": {"messages": [{"role": "user", "content": parts}]}},
        {"body": {"messages": [{"role": "user", "content": picture}]}},
        {"body": {"prompt": "text"}},
        {"body": {"prompt": [3, 4]}},
        {"body": {"prompt": ["one", [5]]}},
    )
    data = read_data(file)
    assert data.prompts == [
        DataPrompt(1, messages=(user("hi"), {**call, "content": ""}), tools=tools),
        DataPrompt(2, messages=(user("ab"),)),
        DataPrompt(4, text="text"),
        DataPrompt(5, token_ids=(3, 4)),
        DataPrompt(6, text="one"),
        DataPrompt(6, token_ids=(5,)),
    ]
    assert data.skipped == {NOT_TEXT: 1}


def test_a_limit_takes_the_first_prompts_and_reads_no_further(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": "b"}\nbroken\n')
    assert [p.text for p in read_data(file, limit=2).prompts] == ["a", "b"]
    several = written(tmp_path, {"body": {"prompt": ["a", "b", "c"]}}, name="batch.jsonl")
    assert len(read_data(several, limit=2).prompts) == 2


@pytest.mark.parametrize(
    ("content", "data_format", "message"),
    [
        ("", "auto", "no prompts in it"),
        ("[]", "auto", "no prompts in it"),
        ('{"prompt": "a"}\n{', "auto", "line 2: no JSON .*correct or remove the line"),
        ('{"prompt": "a"}\n[1]', "auto", "line 2: expected an object, got list"),
        ('[{"prompt": "a"},\n\n{"prompt": ]', "auto", "line 3: no JSON .*give a whole file"),
        ('[{"prompt": "a"},\n{"prompt": "b"}', "auto", "line 2: the file ends inside the array"),
        ('{"question": "a", "answer": "b"}', "auto", r"line 1: none of the known formats .*question, answer"),
        ('{"instruction": "a"}', "jsonl", "line 1: needs prompt_token_ids or prompt.*another --format"),
        ('{"prompt": ""}', "auto", "line 1: needs prompt_token_ids or prompt, not empty"),
        ('{"prompt": "a", "kind": 3}', "auto", "the field kind must be a string"),
        ('{"prompt_token_ids": []}', "auto", "prompt_token_ids must be a list of token numbers, not empty"),
        ('{"prompt_token_ids": [1, -1]}', "auto", "prompt_token_ids must be a list of token numbers"),
        ('{"prompt_token_ids": [true]}', "auto", "prompt_token_ids must be a list of token numbers"),
        ('{"conversations": "a"}', "auto", "needs a list of turns"),
        ('{"conversations": [{"value": "a"}]}', "auto", "a turn needs 'from' and 'value'"),
        ('{"conversations": [{"from": "human"}]}', "auto", "needs value, not empty"),
        ('{"instruction": "a", "input": 3}', "auto", "the field input must be a string"),
        ('{"body": 3}', "auto", "needs an object 'body'"),
        ('{"body": {}}', "auto", "needs body.messages or body.prompt"),
        ('{"body": {"prompt": []}}', "auto", "body.prompt must be a list of token numbers, not empty"),
        ('{"body": {"messages": []}}', "auto", "body.messages must be a list of messages, not empty"),
        ('{"body": {"messages": [{"content": "a"}]}}', "auto", "a message of body.messages needs 'role'"),
        ('{"body": {"messages": [{"role": "user", "content": 3}]}}', "auto", "content must be text"),
        ('{"body": {"messages": [{"role": "user", "content": "a"}], "tools": 3}}', "auto", "body.tools"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, content: str, data_format: str, message: str
) -> None:
    file = tmp_path / "data.json"
    file.write_text(content)
    with pytest.raises(PromptFileError, match=message) as caught:
        read_data(file, data_format)
    assert str(file) in str(caught.value)


def test_a_data_set_of_conversations_without_a_prompt_says_so(tmp_path: Path) -> None:
    file = written(tmp_path, {"conversations": [{"from": "gpt", "value": "hi"}]})
    with pytest.raises(PromptFileError, match=rf"no prompts in it \(left out: 1 with {NO_PROMPT}\)"):
        read_data(file)


@pytest.mark.parametrize(
    "content", [gzip.compress(b'{"prompt": "a"}')[:-9], b'{"prompt": "a"}'], ids=["cut", "not packed"]
)
def test_a_damaged_archive_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "data.jsonl.gz"
    file.write_bytes(content)
    with pytest.raises(PromptFileError, match="cannot be read"):
        read_data(file)
    with pytest.raises(PromptFileError, match="cannot be read"):
        read_data(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "é"}'.encode("latin-1"))
    with pytest.raises(PromptFileError, match="give a whole file of UTF-8"):
        read_data(tmp_path / "latin.jsonl")
