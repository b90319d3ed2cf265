"""Checks a vLLM source tree for everything in `needs`, by syntax tree, without importing it.

`python -m trail.engine.start.selfcheck --source WHEEL_OR_DIRECTORY ... [--markdown FILE]`
"""

import argparse
import ast
import functools
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trail.engine.start import needs
from trail.engine.start.needs import Need

PAGE = "docs/compatibility.md"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Missing:
    """What a vLLM lacks; `str()` is the sentence for the log."""

    need: Need
    reason: str

    def __str__(self) -> str:
        return f"{self.need.module}:{self.need.name} {self.reason} (used for {self.need.why})"


@dataclass
class _Class:
    """Attributes by name, with the parameters of those that are methods, and the bases' names."""

    attributes: dict[str, tuple[str, ...] | None] = field(default_factory=dict)
    bases: list[str] = field(default_factory=list)


@dataclass
class _Module:
    """A module's top level: classes, functions with their parameters, and what it imports from where."""

    classes: dict[str, _Class] = field(default_factory=dict)
    functions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)


def check_source(root: Path, wanted: Sequence[Need] = needs.ALL) -> list[Missing]:
    """What of `wanted` the `vllm` package below `root` lacks; empty when all is there.

    Raises FileNotFoundError when `root` holds no `vllm` package.
    """
    if not (root / "vllm" / "__init__.py").is_file():
        raise FileNotFoundError(f"{root} holds no vllm package; name the directory that contains vllm/")
    tree = _Source(root)
    return [Missing(need, reason) for need in wanted if (reason := tree.lacks(need))]


class _Source:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules: dict[str, _Module | None] = {}

    def lacks(self, need: Need) -> str:
        """Why `need` is not met, empty when it is."""
        module = self._module(need.module)
        if module is None:
            return "is missing: no such module"
        owner, _, attribute = need.name.partition(".")
        if not attribute:
            if owner in module.functions:
                return _lacking_parameters(need, module.functions[owner])
            return "" if owner in module.classes else "is missing"
        for found in self._lineage(need.module, owner):
            if attribute in found.attributes:
                parameters = found.attributes[attribute]
                return _lacking_parameters(need, parameters) if parameters is not None else ""
        return "is missing"

    def _lineage(self, module_name: str, class_name: str) -> Iterator[_Class]:
        """The class and its bases within vLLM, nearest first."""
        pending, seen = [(module_name, class_name)], set()
        while pending:
            at = pending.pop(0)
            module = self._module(at[0])
            if at in seen or module is None:
                continue
            seen.add(at)
            if at[1] in module.classes:
                found = module.classes[at[1]]
                yield found
                pending += [module.imports.get(base, (at[0], base)) for base in found.bases]
            elif at[1] in module.imports:
                pending.append(module.imports[at[1]])

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            path = self._root.joinpath(*name.split("."))
            files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
            self._modules[name] = _read_module(files[0]) if files else None
        return self._modules[name]


def _lacking_parameters(need: Need, parameters: tuple[str, ...]) -> str:
    lacking = [p for p in need.parameters if p not in parameters and "*" not in parameters]
    return f"does not take {', '.join(lacking)}" if lacking else ""


def _read_module(path: Path) -> _Module:
    module = _Module()
    for node in _top_level(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.ClassDef):
            module.classes[node.name] = _read_class(node)
        elif isinstance(node, _FUNCTIONS):
            module.functions[node.name] = _parameters(node)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                module.imports[alias.asname or alias.name] = (node.module, alias.name)
    return module


def _top_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _top_level(node.body)
            yield from _top_level(node.orelse)
        else:
            yield node


def _read_class(node: ast.ClassDef) -> _Class:
    found = _Class(bases=[base.id for base in map(_unsubscripted, node.bases) if isinstance(base, ast.Name)])
    for statement in _top_level(node.body):
        if isinstance(statement, _FUNCTIONS):
            found.attributes[statement.name] = None if _is_property(statement) else _parameters(statement)
            for inner in ast.walk(statement):
                for target in _targets(inner):
                    if isinstance(target, ast.Attribute) and _is_self(target.value):
                        found.attributes.setdefault(target.attr, None)
        else:
            for target in _targets(statement):
                if isinstance(target, ast.Name):
                    found.attributes.setdefault(target.id, None)
    return found


def _unsubscripted(base: ast.expr) -> ast.expr:
    return base.value if isinstance(base, ast.Subscript) else base


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    """Names of all parameters; `*` stands for any further name (**kwargs)."""
    arguments = node.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return (*names, "*") if arguments.kwarg else tuple(names)


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from target.elts if isinstance(target, ast.Tuple) else [target]
    elif isinstance(node, ast.AnnAssign):
        yield node.target


@functools.cache
def installed_missing() -> tuple[Missing, ...]:
    """What the installed vLLM lacks; its modules are read, not imported."""
    import vllm

    return tuple(check_source(Path(vllm.__file__).parents[1]))


def version_of(source: Path) -> str:
    """A wheel's version from its name, a source tree's from `vllm/_version.py`; `unknown` otherwise."""
    if source.suffix == ".whl":
        return source.name.split("-")[1]
    version_file = source / "vllm" / "_version.py"
    text = version_file.read_text() if version_file.is_file() else ""
    found = re.search(r"__version__ = version = ['\"]([^'\"]+)", text) or re.search(
        r"^__version__ = ['\"]([^'\"]+)", text, re.MULTILINE
    )
    return found.group(1) if found else "unknown"


def check_wheel_or_tree(source: Path) -> list[Missing]:
    """`check_source` for a wheel or a directory. Raises FileNotFoundError."""
    if source.suffix != ".whl":
        return check_source(source)
    with tempfile.TemporaryDirectory() as directory, zipfile.ZipFile(source) as wheel:
        members = [name for name in wheel.namelist() if re.fullmatch(r"vllm/.*\.py", name)]
        wheel.extractall(directory, members)
        return check_source(Path(directory))


def markdown(results: Sequence[tuple[str, str, list[Missing]]]) -> str:
    """The page about versions; rows are (version, file name, missing)."""
    lines = [
        "# vLLM versions",
        "",
        "TRAIL uses parts of vLLM that are not public. At start-up it looks for each of them in the",
        "installed vLLM's source; what is missing turns TRAIL off with one line that names it. The same",
        "check over other versions' wheels, without running them:",
        "",
        f"    python -m trail.engine.start.selfcheck --source WHEEL ... --markdown {PAGE}",
        "",
        f"{len(needs.ALL)} names are checked (`sidecar/trail/engine/start/needs.py`).",
        "",
        "| vLLM | source | result |",
        "|---|---|---|",
    ]
    for version, name, missing in results:
        result = "everything is there" if not missing else "; ".join(map(str, missing))
        lines.append(f"| {version} | `{name}` | {result} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check each source; exit status 1 when something is missing, 2 when a source cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m trail.engine.start.selfcheck", description=main.__doc__)
    add = functools.partial(parser.add_argument, type=Path)
    add("--source", action="append", required=True, help="a wheel, or a directory that holds vllm/")
    add("--markdown", help="write the table to this file")
    options = parser.parse_args(arguments)
    results = []
    for source in options.source:
        try:
            missing = check_wheel_or_tree(source)
        except (OSError, zipfile.BadZipFile, SyntaxError) as error:
            sys.stderr.write(f"{source}: {error}\n")
            return 2
        version = version_of(source)
        results.append((version, source.name, missing))
        sys.stdout.write(
            f"{version}: {'everything is there' if not missing else f'{len(missing)} missing'}\n"
        )
        sys.stdout.writelines(f"  {item}\n" for item in missing)
    if options.markdown:
        options.markdown.write_text(markdown(results))
    return 1 if any(missing for _, _, missing in results) else 0


if __name__ == "__main__":
    sys.exit(main())
