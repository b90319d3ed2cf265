"""What sidecars and operator keep in Redis: keys, fields, and the two scripts that write them.

All keys of a workload share a hash tag, so that they lie in one slot of a Redis Cluster. No value holds a
prompt, a token or a vector. Times are Redis's own: no clock of a pod or of the operator is ever compared.
Redis 6.2 commands only; this module needs no client.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

SCHEMA_VERSION = 1
GENERATION_LIMIT = 2**53 - 1
"""Largest generation: Lua's numbers count exactly so far."""
REASON_LIMIT = 400
EXPIRY_INTERVALS = 3.0
"""A report that is older than so many intervals speaks for nobody."""
HISTORY_LENGTH = 2000
"""Entries that a workload's history keeps, about."""

_PART = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?"
_WORKLOAD = re.compile(rf"{_PART}/{_PART}/{_PART}")
_POD = re.compile(_PART)
_UNKNOWN = ""


@dataclass(frozen=True)
class Rejected:
    """A value from Redis that this build does not take: the field, and what is wrong with it."""

    field: str
    why: str

    def __str__(self) -> str:
        return f"{self.field}: {self.why}"


@dataclass(frozen=True)
class Keys:
    """Names in Redis of one workload, `namespace/kind/name` as in `shop/deployment/llama`.

    Raises ValueError for a workload that is not written like that.
    """

    workload: str

    def __post_init__(self) -> None:
        if not _WORKLOAD.fullmatch(self.workload):
            raise ValueError(
                f"workload {self.workload!r} is no namespace/kind/name; write it as in shop/deployment/llama"
            )

    @property
    def _base(self) -> str:
        return f"trail:{SCHEMA_VERSION}:{{{self.workload}}}"

    def pod(self, pod: str) -> str:
        """Hash: the newest report of `pod`. Expires."""
        return f"{self._base}:pod:{pod}"

    @property
    def pods(self) -> str:
        """Sorted set: pods by the time of their last report, Redis's milliseconds."""
        return f"{self._base}:pods"

    @property
    def history(self) -> str:
        """Stream: reports of late, about HISTORY_LENGTH of them."""
        return f"{self._base}:history"

    @property
    def c(self) -> str:
        """Hash: c, its generation and the reason for it. The truth."""
        return f"{self._base}:c"

    @property
    def hint(self) -> str:
        """Channel: says that the hash has changed, and no more."""
        return f"{self._base}:hint"

    @property
    def state(self) -> str:
        """String: what the controller remembers, for the operator that comes after."""
        return f"{self._base}:state"


def check_pod(pod: str) -> str:
    """`pod` where it may be part of a key. Raises ValueError."""
    if not _POD.fullmatch(pod):
        raise ValueError(f"pod {pod!r} is no Kubernetes name or UID")
    return pod


@dataclass(frozen=True)
class PodReport:
    """What one pod's engines went through over the last `interval_s`, summed over its engines.

    Rates are per second of wall time. NaN says that the pod does not know; only the fields that name it
    may be NaN.
    """

    interval_s: float
    waiting: float
    """Requests that wait, the mean over the interval."""
    running: float
    usage: float
    """Share of the KV cache in use, 0 to 1, of the fullest engine."""
    free_blocks: float
    """KV blocks that are free. NaN: unknown."""
    generated_s: float
    """Output tokens a second."""
    recomputed_s: float
    """Tokens computed again after preemptions, a second."""
    preemptions_s: float
    """Preemptions a second, for want of memory and by policy."""
    policy_preemptions_s: float
    recompute_cost: float
    """Engine time of one more prefill token over that of one output token. NaN: unknown."""
    prompt_tokens: float
    """Mean prompt of the open requests. NaN: none are open."""
    answer_tokens: float
    """Mean initial prediction. NaN: unknown."""
    prefix_cache: float
    """1 where prefix caching is on, 0 where it is off. NaN: unknown."""
    short_wait_s: float
    """Mean wait until the first token, of the shortest third that got theirs. NaN: nobody did."""
    gap_s: float
    """Longest pause between two tokens of a request. NaN: unknown."""
    c: float
    """The c in force."""
    generation: int
    """Generation of that c; 0: from no operator."""
    falling_back: int
    """Engines that make no use of predictions now."""


@dataclass(frozen=True)
class ControlRecord:
    """c as the operator wrote it."""

    c: float
    generation: int
    reason: str


@dataclass(frozen=True)
class _Range:
    high: float
    unknown: bool = False
    whole: bool = False


_COUNT = _Range(1e6)
_RATE = _Range(1e8)
_REPORT: dict[str, _Range] = {
    "interval_s": _Range(3600.0),
    "waiting": _COUNT,
    "running": _COUNT,
    "usage": _Range(1.0),
    "free_blocks": _Range(1e9, unknown=True),
    "generated_s": _RATE,
    "recomputed_s": _RATE,
    "preemptions_s": _RATE,
    "policy_preemptions_s": _RATE,
    "recompute_cost": _Range(1e4, unknown=True),
    "prompt_tokens": _Range(1e8, unknown=True),
    "answer_tokens": _Range(1e8, unknown=True),
    "prefix_cache": _Range(1.0, unknown=True),
    "short_wait_s": _Range(1e6, unknown=True),
    "gap_s": _Range(1e6, unknown=True),
    "c": _Range(1.0),
    "generation": _Range(GENERATION_LIMIT, whole=True),
    "falling_back": _Range(1e4, whole=True),
}

Raw = Mapping[bytes, bytes]


def encode_report(report: PodReport) -> dict[str, str]:
    """The hash of a report. Raises ValueError for a value that no reader would take."""
    encoded = {"version": str(SCHEMA_VERSION)}
    for field in fields(report):
        value = getattr(report, field.name)
        text = _UNKNOWN if math.isnan(value) else f"{value:d}" if isinstance(value, int) else f"{value:.9g}"
        _check_written(field.name, text)
        encoded[field.name] = text
    return encoded


def decode_report(raw: Raw) -> PodReport | Rejected:
    """The report in a hash, or what is wrong with it."""
    if problem := _version(raw):
        return problem
    values: dict[str, float] = {}
    for name, limits in _REPORT.items():
        value = _number(name, raw.get(name.encode()), limits)
        if isinstance(value, Rejected):
            return value
        values[name] = value
    return PodReport(**values)  # type: ignore[arg-type]  # the fields marked whole are int


def encode_control(record: ControlRecord) -> dict[str, str]:
    """The hash of c, without its generation, which the script makes. Raises ValueError."""
    c = f"{record.c:.9g}"
    _check_written("c", c)
    return {"version": str(SCHEMA_VERSION), "c": c, "reason": record.reason[:REASON_LIMIT]}


def decode_control(raw: Raw) -> ControlRecord | Rejected:
    """The c in a hash, or what is wrong with it."""
    if problem := _version(raw):
        return problem
    c = _number("c", raw.get(b"c"), _REPORT["c"])
    generation = _number("generation", raw.get(b"generation"), _REPORT["generation"])
    for value in (c, generation):
        if isinstance(value, Rejected):
            return value
    if not generation:
        return Rejected("generation", "0 is no generation of an operator")
    reason = raw.get(b"reason", b"")[:REASON_LIMIT].decode("utf-8", "replace")
    return ControlRecord(c, generation, reason)  # type: ignore[arg-type]  # checked just above


def _check_written(name: str, text: str) -> None:
    problem = _number(name, text.encode(), _REPORT[name])
    if isinstance(problem, Rejected):
        raise ValueError(f"cannot write {problem}")  # noqa: TRY004 - the value is wrong, not its type


def _version(raw: Raw) -> Rejected | None:
    version = raw.get(b"version")
    if version is None:
        return Rejected("version", "missing")
    if version != str(SCHEMA_VERSION).encode():
        return Rejected("version", f"{_shown(version)}, this build reads {SCHEMA_VERSION}")
    return None


def _number(name: str, text: bytes | None, limits: _Range) -> float | int | Rejected:
    if text is None:
        return Rejected(name, "missing")
    if text == _UNKNOWN.encode():
        return math.nan if limits.unknown else Rejected(name, "empty")
    try:
        value = int(text) if limits.whole and len(text) < 20 else float(text)
    except ValueError:
        return Rejected(name, f"{_shown(text)} is no number")
    if not (0 <= value <= limits.high) or (limits.whole and not isinstance(value, int)):
        return Rejected(name, f"{_shown(text)} is not in [0, {limits.high:g}]")
    return value


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "replace"))


REPORT_SCRIPT = """
-- A pod's report: hash, heartbeat and history in one, at Redis's own time.
-- KEYS: pod hash, pods, history. ARGV: pod, expiry in ms, entries of history, then field, value, ...
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = tonumber(ARGV[2])
local report = {unpack(ARGV, 4)}
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(report))
redis.call('PEXPIRE', KEYS[1], expiry)
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - 4 * expiry))
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'pod', ARGV[1], unpack(report))
redis.call('PEXPIRE', KEYS[2], 20 * expiry)
redis.call('PEXPIRE', KEYS[3], 3600000)
return string.format('%.0f', now)
"""

CONTROL_SCRIPT = f"""
-- Writes c unless the hash holds a generation that the writer has not seen.
-- KEYS: hash of c. ARGV: last generation seen (0: none), channel, version, c, reason.
-- Returns written (1 or 0) and the generation that the hash holds now.
-- Generations follow Redis's milliseconds, so that they go on growing when Redis has lost its data.
local seen = tonumber(ARGV[1])
local held = tonumber(redis.call('HGET', KEYS[1], 'generation') or '0')
if not held or held ~= held or held < 0 or held > {GENERATION_LIMIT} then held = 0 end
if held > seen then return {{0, string.format('%.0f', held)}} end
local time = redis.call('TIME')
local new = math.max(seen + 1, time[1] * 1000 + math.floor(time[2] / 1000))
local text = string.format('%.0f', new)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'version', ARGV[3], 'c', ARGV[4], 'reason', ARGV[5], 'generation', text)
redis.call('PUBLISH', ARGV[2], text)
return {{1, text}}
"""
