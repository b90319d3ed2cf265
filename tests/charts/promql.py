"""As much of PromQL as our dashboard, alerts and autoscalers use: parsed, and evaluated on two scrapes.

What is not understood is an error, so that a query with a mistake does not pass.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

AGGREGATIONS = {"sum": sum, "min": min, "max": max, "count": len, "avg": lambda v: sum(v) / len(v)}
OF_RANGES = frozenset({"rate", "increase"})
_BINARY = (("or",), ("and", "unless"), (">", "<", ">=", "<=", "==", "!="), ("+", "-"), ("*", "/"))
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)
    |(?P<text>"(?:[^"\\]|\\.)*")|(?P<range>\[(?:\d+[smhd]|\$__rate_interval)\])
    |(?P<op>=~|!~|!=|==|>=|<=|[-+*/(){},<>=]))""",
    re.VERBOSE,
)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class PromQLError(ValueError):
    """A query that is wrong, or more than this module knows."""


@dataclass(frozen=True)
class Selector:
    """`name{label op "value"}[range]`; range in seconds, 0 for an instant."""

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()
    range_s: float = 0.0


@dataclass(frozen=True)
class Call:
    """A function or aggregation; `by` is None where no labels are named."""

    function: str
    arguments: tuple[Any, ...]
    by: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Binary:
    """Two expressions and what is between them."""

    op: str
    left: Any
    right: Any


Expression = Selector | Call | Binary | float


def parse(query: str) -> Expression:
    """Raises PromQLError."""
    parser = _Parser(query)
    found = parser.expression(0)
    if parser.peek is not None:
        raise PromQLError(f"{query!r}: nothing is expected from {parser.peek!r} on")
    return found


class _Parser:
    def __init__(self, query: str) -> None:
        self._query = query
        self._tokens = self._split(query)
        self._at = 0

    def _split(self, query: str) -> list[str]:
        tokens, at = [], 0
        while at < len(query.rstrip()):
            match = _TOKEN.match(query, at)
            if match is None:
                raise PromQLError(f"{query!r}: cannot be read from {query[at:]!r} on")
            tokens.append(match.group(match.lastgroup or 0))
            at = match.end()
        return tokens

    @property
    def peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def take(self, *expected: str) -> str:
        token = self.peek
        if token is None or (expected and token not in expected):
            raise PromQLError(f"{self._query!r}: {' or '.join(expected) or 'more'} expected, not {token!r}")
        self._at += 1
        return token

    def expression(self, level: int) -> Expression:
        if level == len(_BINARY):
            return self.term()
        left = self.expression(level + 1)
        while self.peek in _BINARY[level]:
            left = Binary(self.take(), left, self.expression(level + 1))
        return left

    def term(self) -> Expression:
        word = self.take()
        if word == "(":
            inner = self.expression(0)
            self.take(")")
            return inner
        if word[0].isdigit():
            return float(word)
        if not (word[0].isalpha() or word[0] == "_"):
            raise PromQLError(f"{self._query!r}: a metric, a function or a number expected, not {word!r}")
        if self.peek == "(" or (word in AGGREGATIONS and self.peek == "by"):
            return self.call(word)
        return self.selector(word)

    def call(self, function: str) -> Call:
        known = {*AGGREGATIONS, *OF_RANGES, "absent", "histogram_quantile", "clamp_min"}
        if function not in known:
            raise PromQLError(f"{self._query!r}: {function} is no function known here")
        by = None
        if self.peek == "by":
            self.take("by")
            by = self.names()
        self.take("(")
        arguments = [self.expression(0)]
        while self.peek == ",":
            self.take(",")
            arguments.append(self.expression(0))
        self.take(")")
        return Call(function, tuple(arguments), by)

    def names(self) -> tuple[str, ...]:
        self.take("(")
        found = [self.take()]
        while self.peek == ",":
            self.take(",")
            found.append(self.take())
        self.take(")")
        return tuple(found)

    def selector(self, name: str) -> Selector:
        matchers = []
        if self.peek == "{":
            self.take("{")
            while self.peek != "}":
                label, op = self.take(), self.take("=", "!=", "=~", "!~")
                matchers.append((label, op, self.take()[1:-1]))
                if self.peek != "}":
                    self.take(",")
            self.take("}")
        range_s = 0.0
        if self.peek is not None and self.peek.startswith("["):
            text = self.take()[1:-1]
            range_s = 240.0 if text.startswith("$") else int(text[:-1]) * _SECONDS[text[-1]]
        return Selector(name, tuple(matchers), range_s)


def selectors(expression: Expression) -> Iterator[Selector]:
    """All selectors of an expression."""
    if isinstance(expression, Selector):
        yield expression
    elif isinstance(expression, Call):
        for argument in expression.arguments:
            yield from selectors(argument)
    elif isinstance(expression, Binary):
        yield from selectors(expression.left)
        yield from selectors(expression.right)


def calls(expression: Expression) -> Iterator[Call]:
    """All calls of an expression."""
    if isinstance(expression, Call):
        yield expression
        for argument in expression.arguments:
            yield from calls(argument)
    elif isinstance(expression, Binary):
        yield from calls(expression.left)
        yield from calls(expression.right)


Labels = tuple[tuple[str, str], ...]
Vector = dict[Labels, float]
Samples = dict[tuple[str, Labels], float]
"""By name and labels."""


@dataclass(frozen=True)
class Scrapes:
    """Samples at two times that are `apart_s` seconds apart, by name and labels."""

    before: Mapping[tuple[str, Labels], float]
    after: Mapping[tuple[str, Labels], float]
    apart_s: float = 60.0
    variables: Mapping[str, str] = field(default_factory=dict)

    def select(self, selector: Selector) -> Iterator[tuple[Labels, float, float]]:
        """Labels, value before (NaN where there was none) and value after."""
        for (name, labels), value in self.after.items():
            if name == selector.name and all(self._fits(dict(labels), *m) for m in selector.matchers):
                yield labels, self.before.get((name, labels), math.nan), value

    def _fits(self, labels: dict[str, str], label: str, op: str, wanted: str) -> bool:
        for name, value in self.variables.items():
            wanted = wanted.replace(f"${name}", value)
        present = labels.get(label, "")
        equal = re.fullmatch(wanted, present) is not None if "~" in op else present == wanted
        return equal is (op in ("=", "=~"))


_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul,
    "/": lambda a, b: a / b if b else (math.nan if not a or math.isnan(a) else math.copysign(math.inf, a)),
}  # fmt: skip
_COMPARISON: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


def evaluate(expression: Expression, scrapes: Scrapes) -> Vector | float:
    """What Prometheus answers at the second scrape."""
    if isinstance(expression, float):
        return expression
    if isinstance(expression, Selector):
        if expression.range_s:
            raise PromQLError(f"{expression.name}: a range belongs into rate or increase")
        return {labels: value for labels, _, value in scrapes.select(expression)}
    if isinstance(expression, Call):
        return _called(expression, scrapes)
    return _combined(expression.op, evaluate(expression.left, scrapes), evaluate(expression.right, scrapes))


def _called(call: Call, scrapes: Scrapes) -> Vector:
    function, arguments = call.function, call.arguments
    if function in OF_RANGES:
        (selector,) = arguments
        if not isinstance(selector, Selector) or not selector.range_s:
            raise PromQLError(f"{function} needs a selector with a range, as in {function}(x[5m])")
        seconds = 1.0 if function == "rate" else selector.range_s
        return {
            labels: (after - before if after >= before else after) / scrapes.apart_s * seconds
            for labels, before, after in scrapes.select(selector)
            if not math.isnan(before)
        }
    value = evaluate(arguments[-1] if function == "histogram_quantile" else arguments[0], scrapes)
    if isinstance(value, float):
        raise PromQLError(f"{function} needs metrics, not a number")
    if function == "absent":
        return {} if value else {(): 1.0}
    if function == "clamp_min":
        least = arguments[1]
        return {labels: max(one, least) for labels, one in value.items()}
    if function == "histogram_quantile":
        return _quantiles(arguments[0], value)
    groups: dict[Labels, list[float]] = {}
    for labels, one in value.items():
        key = tuple(pair for pair in labels if pair[0] in (call.by or ()))
        groups.setdefault(key, []).append(one)
    return {key: float(AGGREGATIONS[function](values)) for key, values in groups.items()}


def _quantiles(q: float, buckets: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        rest = tuple(pair for pair in labels if pair[0] != "le")
        groups.setdefault(rest, []).append((float(dict(labels)["le"]), count))
    return {rest: _quantile(q, sorted(bounds)) for rest, bounds in groups.items()}


def _quantile(q: float, bounds: list[tuple[float, float]]) -> float:
    total = bounds[-1][1]
    if not total > 0:
        return math.nan
    low, below = 0.0, 0.0
    for bound, count in bounds:
        if count >= q * total:
            return low if math.isinf(bound) else low + (bound - low) * (q * total - below) / (count - below)
        low, below = bound, count
    raise PromQLError("a histogram without a bucket +Inf")


def _combined(op: str, left: Vector | float, right: Vector | float) -> Vector | float:
    if op in ("and", "or", "unless"):
        if isinstance(left, float) or isinstance(right, float):
            raise PromQLError(f"{op} joins metrics, not numbers")
        if op == "or":
            return {**right, **left}
        return {labels: one for labels, one in left.items() if (labels in right) is (op == "and")}
    if isinstance(left, float) and isinstance(right, float):
        return _ARITHMETIC[op](left, right)
    pairs = _pairs(left, right)
    if op in _COMPARISON:
        kept = left if isinstance(left, dict) else right
        return {labels: kept[labels] for labels, a, b in pairs if _COMPARISON[op](a, b)}  # type: ignore[index]
    return {labels: _ARITHMETIC[op](a, b) for labels, a, b in pairs}


def _pairs(left: Vector | float, right: Vector | float) -> list[tuple[Labels, float, float]]:
    if isinstance(left, dict) and isinstance(right, dict):
        return [(labels, one, right[labels]) for labels, one in left.items() if labels in right]
    if isinstance(left, dict):
        return [(labels, one, right) for labels, one in left.items()]  # type: ignore[misc]
    return [(labels, left, one) for labels, one in right.items()]  # type: ignore[union-attr]
