"""Commands in docs/kubernetes: `trail ...` parses, and files that others name are there."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from trail.cli import COMMANDS
from trail_operator.config import make_parser
from trail_operator.jobs.uninstall import make_parser as uninstall_parser

ROOT = Path(__file__).parents[3]
DOCS = sorted((ROOT / "docs/kubernetes").glob("*.md"))
ON_A_CLUSTER = ("status", "enable", "disable", "c", "explain-injection")
ELSEWHERE = ("shadow-report", "top")
"""Commands that read what a cluster has given, or are run in a pod."""
NOT_THE_OPERATORS = ("helm", "kubectl", "docker", "trail", "pip", "python")


def texts(file: Path) -> list[str]:
    """Lines of code blocks, and code within the text."""
    text = re.sub(r" \\\n\s+", " ", file.read_text())
    blocks = re.findall(r"^ {4,}(.*)$", text, re.MULTILINE)
    return [line.split("   #")[0].strip() for line in [*blocks, *re.findall(r"`([^`\n]+)`", text)]]


def commands(word: str) -> list[str]:
    return sorted({line for file in DOCS for line in texts(file) if line.startswith(f"{word} ")})


@pytest.mark.parametrize("line", commands("trail"))
def test_trail_commands_parse(line: str) -> None:
    name, *words = shlex.split(line)[1:]
    (command,) = [c for c in COMMANDS if c.name == name]
    assert name in (*ON_A_CLUSTER, *ELSEWHERE)
    # A command that is only named, as `trail status`, is no example of its arguments.
    if not words and name in ("enable", "disable", "explain-injection", *ELSEWHERE):
        return
    if words in (["set"], ["get"]) or words == ["get/set"]:
        return
    parser = argparse.ArgumentParser(allow_abbrev=False)
    command.load().configure(parser)
    parser.parse_args(["llama" if word == "POD" else word for word in words])


def test_each_command_is_shown_in_the_docs() -> None:
    shown = {line.split()[1] for line in commands("trail")}
    assert shown == {*ON_A_CLUSTER, *ELSEWHERE}


@pytest.mark.parametrize("line", [*commands("helm"), *commands("docker")])
def test_files_that_commands_name_are_there(line: str) -> None:
    named = [word for word in shlex.split(line) if "/" in word and not re.match(r"REGISTRY|--?\w", word)]
    assert all((ROOT / word).exists() for word in named), named


def test_the_operators_own_options_are_written_right() -> None:
    known = {option for parser in (make_parser({}), uninstall_parser()) for a in parser._actions
             for option in a.option_strings}  # fmt: skip
    trail = {"--context", "--no-wait", "--timeout", "--once"}
    for file in DOCS:
        for line in texts(file):
            if line.split()[0] in NOT_THE_OPERATORS:
                continue
            assert set(re.findall(r"(?<!\S)--[a-z][a-z-]+", line)) <= known | trail, line
