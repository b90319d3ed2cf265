"""README, docs, examples and experiments against the tree and the code: links, commands, options, numbers."""

import argparse
import importlib
import importlib.util
import re
import runpy
import shlex
from pathlib import Path

import pytest
import yaml

from trail.cli import COMMANDS
from trail.engine.start.features import _CHECKS
from trail.policy.controller import LEVELS, Law
from trail.policy.guard import Guard
from trail.policy.spec import POLICY_NAMES, PolicySpec
from trail.predict import drift, online, quality
from trail.sidecar import config
from trail.simulation.engine.steptime import PRESET_KV_TOKENS, PRESETS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    file
    for place in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/**/*.md")
    for file in ROOT.glob(place)
)
BASES = (ROOT, ROOT / "sidecar/trail", ROOT / "operator/trail_operator")
"""Where paths that pages name begin."""
BUILT = {"build", "dist"}
LAW = Law()
STATED = {
    "docs/c.md": (
        f"c is the largest of {', '.join(f'{c:g}' for c in LEVELS)} whose",
        f"at most {('no', 'one', 'two')[LAW.stride]} levels a decision",
        f"a factor {(1 + LAW.margin) ** 2:.2f} in price",
        f"limit = {LAW.limit_latency:g} + {LAW.limit_ttft - LAW.limit_latency:g} *",
        f"exp(-crowding / {LAW.room:g})",
        f"starts at {LAW.start:g}",
    ),
    "docs/metrics.md": (f"time constant of {({180: 'three minutes'})[int(Guard().hold_s)]}",),
    "docs/autoscaling.md": (f"time constant of {({180: 'three minutes'})[int(Guard().hold_s)]}",),
    "docs/policies.md": (f"decaying over {({180: 'three minutes'})[int(Guard().hold_s)]}",),
    "docs/quality.md": (
        f"lambda = {', '.join(map(str, drift.STAKES[:-1]))} and {drift.STAKES[-1]}",
        f"t / {drift.ALARM:,.0f}",
        f"last {quality.WINDOW} requests after every {quality.FIT_FROM}",
        f"A prior worth {online.PRIOR_REQUESTS:.0f} requests",
    ),
    "docs/simulate.md": tuple(
        f"| {PRESET_KV_TOKENS[a]:,} | {PRESET_KV_TOKENS[b]:,} |" for a, b in [tuple(PRESETS)]
    ),
}
"""Numbers that pages state, made from the constants of the code."""


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def text(page: str) -> str:
    return re.sub(r"\s*\n\s*(?=\S)", " ", (ROOT / page).read_text())


def lines(word: str) -> list[str]:
    """Lines of indented code on all pages that begin with a command, their comments left out."""
    found = set()
    for file in PAGES:
        joined = re.sub(r" \\\n\s+", " ", file.read_text())
        found |= {line.split(" #")[0].strip() for line in re.findall(r"^ {4,}(.*)$", joined, re.MULTILINE)}
    return sorted(line for line in found if re.match(rf"(\w+=\S+ )*{word} ", line) and "->" not in line)


def anchors(file: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("file", PAGES, ids=name)
def test_links_lead_somewhere(file: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", file.read_text()):
        if target.startswith("http"):
            continue
        linked = (file.parent / target).resolve() if target else file
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"


@pytest.mark.parametrize("file", PAGES, ids=name)
def test_named_files_targets_and_modules_are_there(file: Path) -> None:
    written = file.read_text()
    folders = "|".join(
        sorted({path.name for base in BASES for path in base.iterdir() if path.is_dir()} - BUILT)
    )
    for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", written.replace("`policy/v1", "")):
        assert any((base / found).exists() for base in BASES for found in (path, f"{path}.py")), path
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^ {4}|`)make ([a-z0-9-]+)", written, re.MULTILINE):
        assert f"\n{target}:" in makefile, target
    for module in re.findall(r"python -m ([\w.]+)", written):
        assert importlib.util.find_spec(module), module
    for script in re.findall(r"python ([\w./-]+\.py)", written):
        assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("line", lines("trail"))
def test_trail_commands_parse(line: str) -> None:
    words = shlex.split(re.sub(r"\[[^\]]*\]|(?<= )\.\.\.", "", line[line.index("trail ") :]))[1:]
    (command,) = [c for c in COMMANDS if c.name == words[0]]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    importlib.import_module(f"trail.commands.{command.module}").configure(parser)
    _, unknown = parser.parse_known_args(words[1:])
    assert command.passes_on or not unknown, unknown


@pytest.mark.parametrize("page", STATED)
def test_numbers_are_those_of_the_code(page: str) -> None:
    for stated in STATED[page]:
        assert stated in text(page), stated


def test_every_feature_with_which_trail_steps_aside_is_named() -> None:
    stated = re.findall(r"^- (.*)\.$", (ROOT / "docs/serve.md").read_text(), re.MULTILINE)
    assert stated == [reason for _, reason in _CHECKS]


def test_the_options_of_the_sidecar_are_those_of_the_code() -> None:
    table = re.findall(
        r"^\| `(--[\w-]+)` \| `(TRAIL_\w+)` \| (.*?) \|", (ROOT / "docs/serve.md").read_text(), re.MULTILINE
    )
    parser = argparse.ArgumentParser()
    config.add_arguments(parser, {variable: "7" for _, variable, _ in table})
    plain = argparse.ArgumentParser()
    config.add_arguments(plain, {})
    for option, variable, default in table:
        (with_variable,), (without,) = (
            [a for a in p._actions if option in a.option_strings] for p in (parser, plain)
        )
        assert str(with_variable.default) == "7", variable
        assert default in ("none", "the policy's") or default.strip("`") == str(without.default).rstrip(
            "0"
        ).rstrip("."), option
    left_out = {"--help", "--ring-slots", "--stats-file"}
    options = {
        a.option_strings[-1] for a in plain._actions if not re.match("--(otlp|trace)-", a.option_strings[-1])
    }
    assert options - left_out == {option for option, _, _ in table}


def test_the_defaults_of_policies_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \|[^|]*\|[^|]*\| ([^|]*) \|", (ROOT / "docs/policies.md").read_text(), re.MULTILINE
    )
    fields = {
        "c": "c",
        "k": "kappa",
        "ratio": "preempt_ratio",
        "limit": "max_preemptions",
        "reserve": "kv_reserve_tokens",
    }
    assert [row[0] for row in rows] == list(POLICY_NAMES)
    for policy, parameters in rows:
        for short, default in re.findall(r"`(\w+)` \(([\w.]+)\)", parameters):
            value = getattr(PolicySpec(policy), fields[short])
            assert default == ("off" if value < 0 else f"{value:g}"), (policy, short)


def test_the_values_of_the_chart_have_the_defaults_that_are_stated() -> None:
    values = yaml.safe_load((ROOT / "charts/trail/values.yaml").read_text())
    for path, default in re.findall(
        r"^\| `([\w.]+)` \| (\S+) \|", (ROOT / "docs/kubernetes/install.md").read_text(), re.MULTILINE
    ):
        value = values
        for key in path.split("."):
            value = value[key]
        stated = {"empty": "", "false": "False"}.get(default, default.strip("`"))
        assert stated == (str(value) if value else "" if value in ("", {}) else "False"), path


def test_the_picture_is_the_one_that_its_script_draws() -> None:
    assert (ROOT / "docs/picture.svg").read_text() == runpy.run_path(str(ROOT / "docs/draw_picture.py"))[
        "draw"
    ]()
