"""docs/kubernetes against the code: each word that the operator says has its entry, and no entry is stale."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_kit import make_policy

from trail_operator.access import SIDECAR_COMMANDS
from trail_operator.policy.resource import parse_policy
from trail_operator.reasons import BlockReason, ConditionReason, EventReason, Reason

DOCS = Path(__file__).parents[2] / "docs/kubernetes"
TROUBLESHOOT = (DOCS / "troubleshoot.md").read_text()


def section(title: str) -> str:
    """The text below a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TROUBLESHOOT, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in a text, without their heads."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [row for row in cells if not set("".join(row)) <= set("- ")][1:]


def words(cells: list[str]) -> set[str]:
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


def test_each_skip_reason_has_its_entry_and_each_entry_its_reason() -> None:
    entries = re.findall(r"^### (\S+)\n(.+)", section("Reasons to leave a pod as it is"), re.MULTILINE)
    assert sorted(name for name, _ in entries) == sorted(Reason)
    assert all(len(text) > 20 for _, text in entries)


def test_each_reason_of_a_condition_has_its_entry_and_each_entry_its_reason() -> None:
    table = rows(section("Conditions of a TrailPolicy"))
    assert words([row[1] for row in table]) == set(ConditionReason)
    assert all(row[2] for row in table)


def test_each_reason_of_a_withdrawal_has_its_entry_and_each_entry_its_reason() -> None:
    table = rows(section("Reasons to leave a pod as it is"))
    assert words([row[0] for row in table]) == set(BlockReason)


def test_each_event_has_its_entry_and_each_entry_its_event() -> None:
    assert words([row[0] for row in rows(section("Events"))]) == set(EventReason)


def test_each_alert_is_named() -> None:
    rules = (DOCS.parents[1] / "charts/trail/templates/monitoring.yaml").read_text()
    alerts = set(re.findall(r"alert: (\w+)", rules))
    assert alerts == set(re.findall(r"`(Trail\w+)`", section("Alerts")))


def test_the_redis_user_of_the_docs_has_the_rights_that_sidecars_need() -> None:
    (line,) = re.findall(r"^    ACL SETUSER sidecar (.*)$", (DOCS / "install.md").read_text(), re.MULTILINE)
    assert tuple(word for word in line.split() if word[0] in "+-") == SIDECAR_COMMANDS


def policies() -> list[Any]:
    """TrailPolicies as the docs write them, whole or their spec alone."""
    found = []
    for file in sorted(DOCS.glob("*.md")):
        for block in re.findall(r"(?:^ {4,}.*\n|^\n)+", file.read_text(), re.MULTILINE):
            try:
                obj = yaml.safe_load(block)
            except yaml.YAMLError:
                continue
            if isinstance(obj, dict) and (obj.get("kind") == "TrailPolicy" or set(obj) == {"spec"}):
                found.append(pytest.param(obj, id=f"{file.name}-{len(found)}"))
    return found


@pytest.mark.parametrize("obj", policies())
def test_policies_in_the_docs_are_valid(obj: dict[str, Any]) -> None:
    whole = obj if "kind" in obj else make_policy(**obj["spec"])
    assert parse_policy(whole).name


def test_there_are_policies_in_the_docs() -> None:
    assert len(policies()) >= 2
