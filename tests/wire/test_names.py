"""One place spells the environment variables; whatever reads or sets one imports its name."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from trail.wire import names

ROOT = Path(__file__).parents[2]
HOMES = ("sidecar/trail/wire/names.py", "benchmarks/names.py")
VARIABLE = re.compile(r"\bTRAIL_[A-Z]")


def texts(tree: ast.AST) -> Iterator[str]:
    """String constants, and pieces of f-strings, of a module; none of its docstrings, which are prose."""
    prose = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            yield node.value


@pytest.mark.parametrize("folder", ["sidecar", "operator", "benchmarks", "images"])
def test_no_other_module_spells_a_variable(folder: str) -> None:
    modules = set((ROOT / folder).rglob("*.py")) - {ROOT / home for home in HOMES}
    assert modules
    spelled = {
        path: [t for t in texts(ast.parse(path.read_text())) if VARIABLE.search(t)] for path in modules
    }
    assert {path: found for path, found in spelled.items() if found} == {}


@pytest.mark.parametrize("home", HOMES)
def test_every_variable_has_one_name_and_one_line_on_it(home: str) -> None:
    body = ast.parse((ROOT / home).read_text()).body
    variables = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            (target,) = node.targets
            if isinstance(target, ast.Name) and target.id.startswith("ENV_"):
                variables.append(node.value.value)
                assert isinstance(after, ast.Expr), f"{target.id} has no line that says what it is"
    assert variables
    assert len(set(variables)) == len(variables)


@pytest.mark.parametrize(
    ("allowed", "extended"),
    [("", "trail"), ("other", "other,trail"), ("other,,trail", "other,trail"), ("trail,b", "trail,b")],
)
def test_a_list_of_plugins_is_extended_and_not_replaced(allowed: str, extended: str) -> None:
    assert names.with_plugin(allowed) == extended
