"""A file appears whole or not at all."""

import json
from pathlib import Path

import pytest

from trail.wire.files import replacing, write_json, write_text


def test_text_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for text in ("first", "second, ½"):
        write_text(file, text)
        assert file.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [file]


def test_json_is_one_line_of_what_json_has(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": [1, 2]})
    assert file.read_text() == '{"a":[1,2]}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, {"a": float("nan")})
    assert json.loads(file.read_text()) == {"a": [1, 2]}


def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"before")

    def fail() -> None:
        with replacing(file) as temporary:
            temporary.write_bytes(b"half")
            assert file.read_bytes() == b"before"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


def test_where_there_is_no_directory_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "absent" / "a.txt", "a")
