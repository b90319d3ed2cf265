"""A TrailPolicy object as typed values. Ranges repeat those of the CRD, since old servers check less.

The object may lack what a server fills in: every default stands here once more, and a test holds both
together. Names and ranges of scheduling policies are those of `trail.policy.spec`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trail.policy.spec import PolicySpec
from trail.wire.names import DEFAULT_METRICS_PORT
from trail_operator.policy import fields
from trail_operator.policy.fields import Object, PolicyError

WITHOUT_PREDICTOR = frozenset({"fcfs", "oracle"})
SHADOW_LOG_MIB = 64
"""What a shadow leaves behind is its log."""

_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_SIZE = re.compile(r"[1-9][0-9]*(Ki|Mi|Gi|k|M|G)?")
_URL = re.compile(r"https?://[^\s/]+(/\S*)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ABSOLUTE = re.compile(r"/[^\x00-\x1f]*")
_RELATIVE = re.compile(r"([^/.\x00-\x1f][^/\x00-\x1f]*(/[^/.\x00-\x1f][^/\x00-\x1f]*)*)?")


@dataclass(frozen=True)
class Expression:
    """One of a selector's `matchExpressions`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """As Kubernetes matches: NotIn and DoesNotExist hold for an absent key."""
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        return (labels.get(self.key) in self.values) == (self.operator == "In")


@dataclass(frozen=True)
class Selector:
    """A label selector; an empty one matches everything."""

    labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[Expression, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod with `labels` is meant."""
        return all(labels.get(key) == value for key, value in self.labels) and all(
            expression.matches(labels) for expression in self.expressions
        )


@dataclass(frozen=True)
class ImagePredictor:
    """The artefact is the directory `path` of an image."""

    image: str
    path: str


@dataclass(frozen=True)
class ClaimPredictor:
    """The artefact is the directory `path` of a volume claim of the pod's namespace."""

    claim: str
    path: str


@dataclass(frozen=True)
class ConfigMapPredictor:
    """The artefact's files are the values of a config map of the pod's namespace."""

    name: str


@dataclass(frozen=True)
class UrlPredictor:
    """The artefact is a tar archive that the sidecar fetches and checks."""

    url: str
    sha256: str


Predictor = ImagePredictor | ClaimPredictor | ConfigMapPredictor | UrlPredictor


@dataclass(frozen=True)
class Bounds:
    """What may become of c: `Auto` moves it within `[low, high]`, `Fixed` keeps `value`."""

    mode: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SidecarSettings:
    """The sidecar container; an empty image is the operator's own choice."""

    image: str = ""
    threads: int = 1
    metrics_port: int = DEFAULT_METRICS_PORT
    shared_memory: str = ""
    resources: Mapping[str, Mapping[str, str]] | None = None
    """None: what fits the pod (`resources.sidecar_resources`)."""


@dataclass(frozen=True)
class TelemetrySettings:
    """Where the sidecar traces to, and how much (no endpoint: nothing); room for its decision log."""

    endpoint: str = ""
    sample_ratio: float = 0.01
    decision_log_mib: int = 0


@dataclass(frozen=True)
class TrailPolicy:
    """One policy, checked. `scheduling.c` is where c starts."""

    namespace: str
    name: str
    selector: Selector | None
    predictor: Predictor | None
    layer: int
    every_steps: int
    scheduling: PolicySpec
    c: Bounds
    sidecar: SidecarSettings
    engine_image: str
    telemetry: TelemetrySettings
    quality: str = "Act"

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


def parse_policy(obj: Object) -> TrailPolicy:
    """The policy that a TrailPolicy object states. Raises PolicyError."""
    metadata = fields.mapping(obj, "metadata", "")
    spec = fields.mapping(obj, "spec", "")
    predictor, layer = _predictor(spec)
    c = fields.mapping(spec, "c", "spec.")
    scheduling = _scheduling(fields.mapping(spec, "policy", "spec."), c)
    if predictor is None and scheduling.name not in WITHOUT_PREDICTOR:
        raise PolicyError(
            f"spec.predictor is missing: policy {scheduling.name} needs one; only"
            f" {' and '.join(sorted(WITHOUT_PREDICTOR))} do without"
        )
    bounds = _bounds(c, scheduling)
    engine = fields.mapping(spec, "engine", "spec.")
    return TrailPolicy(
        namespace=fields.text(metadata, "namespace", "metadata."),
        name=fields.text(metadata, "name", "metadata."),
        selector=parse_selector(obj),
        predictor=predictor,
        layer=layer,
        every_steps=fields.whole(spec, "everySteps", "spec.", (1, 10_000), 1),
        scheduling=replace(scheduling, c=bounds.value),
        c=bounds,
        sidecar=_sidecar(fields.mapping(spec, "sidecar", "spec.")),
        engine_image=fields.text(engine, "image", "spec.engine.", "", most=1024),
        telemetry=_telemetry(fields.mapping(spec, "telemetry", "spec."), shadow=scheduling.shadow),
        quality=fields.choice(spec, "quality", "spec.", ("Act", "Watch"), "Act"),
    )


def parse_selector(obj: Object) -> Selector | None:
    """The selector of a TrailPolicy object; it counts even where the rest is wrong. Raises PolicyError."""
    workloads = fields.mapping(fields.mapping(obj, "spec", ""), "workloads", "spec.")
    if workloads.get("selector") is None:
        return None
    where = "spec.workloads.selector."
    selector = fields.mapping(workloads, "selector", "spec.workloads.")
    labels = fields.mapping(selector, "matchLabels", where)
    expressions = selector.get("matchExpressions") or []
    if not isinstance(expressions, list) or len(expressions) > 32:
        raise PolicyError(f"{where}matchExpressions must be a list of at most 32")
    return Selector(
        tuple(sorted((key, fields.text(labels, key, f"{where}matchLabels.")) for key in labels)),
        tuple(_expression(x, f"{where}matchExpressions[{i}].") for i, x in enumerate(expressions)),
    )


def _expression(obj: Any, where: str) -> Expression:
    if not isinstance(obj, Mapping):
        raise PolicyError(f"{where[:-1]} is {obj!r}; it must be an object with key and operator")
    operator = fields.choice(obj, "operator", where, ("In", "NotIn", "Exists", "DoesNotExist"))
    values = obj.get("values") or []
    if not isinstance(values, list) or len(values) > 64 or not all(isinstance(v, str) for v in values):
        raise PolicyError(f"{where}values must be a list of at most 64 strings")
    if bool(values) != (operator in ("In", "NotIn")):
        raise PolicyError(f"{where}values: In and NotIn need some, Exists and DoesNotExist take none")
    return Expression(fields.text(obj, "key", where), operator, tuple(values))


def _predictor(spec: Object) -> tuple[Predictor | None, int]:
    if spec.get("predictor") is None:
        return None, 0
    where = "spec.predictor."
    obj = fields.mapping(spec, "predictor", "spec.")
    readers: dict[str, Callable[[Object, str], Predictor]] = {
        "image": lambda o, w: ImagePredictor(
            fields.text(o, "reference", w, most=1024),
            fields.path(o, w, _ABSOLUTE, "/predictor", "an absolute path"),
        ),
        "persistentVolumeClaim": lambda o, w: ClaimPredictor(
            fields.text(o, "claimName", w),
            fields.path(o, w, _RELATIVE, "", "a path inside the volume, without . and .."),
        ),
        "configMap": lambda o, w: ConfigMapPredictor(fields.text(o, "name", w)),
        "url": lambda o, w: UrlPredictor(
            fields.matching(o, "location", w, _URL, "an http:// or https:// URL"),
            fields.matching(o, "sha256", w, _SHA256, "64 hexadecimal digits, lower case"),
        ),
    }
    given = [kind for kind in readers if obj.get(kind) is not None]
    if len(given) != 1:
        raise PolicyError(
            f"spec.predictor names {' and '.join(given) or 'no source'}; give exactly one of"
            f" {', '.join(readers)}"
        )
    kind = given[0]
    layer = fields.whole(obj, "layer", where, (0, 65535))
    return readers[kind](fields.mapping(obj, kind, where), f"{where}{kind}."), layer


def _scheduling(policy: Object, c: Object) -> PolicySpec:
    where = "spec.policy."
    given: dict[str, Any] = {"name": fields.text(policy, "name", where, "trail")}
    for key, parameter, low in (("kappa", "kappa", 0.0), ("preemptRatio", "preempt_ratio", 1.0),
                                ("kvReserveTokens", "kv_reserve_tokens", -1.0)):  # fmt: skip
        if policy.get(key) is not None:
            given[parameter] = fields.number(policy, key, where, (low, 1e6))
    if policy.get("maxPreemptions") is not None:
        given["max_preemptions"] = fields.whole(policy, "maxPreemptions", where, (-1, 1_000_000))
    if policy.get("size") is not None:
        given["size"] = fields.text(policy, "size", where)
    if policy.get("shadow") is not None:
        given["shadow"] = fields.flag(policy, "shadow", where)
    if c.get("value") is not None:
        given["c"] = fields.number(c, "value", "spec.c.", (0.0, 1.0))
    try:
        return PolicySpec(**given)
    except ValueError as error:
        raise PolicyError(f"spec.policy: {error}") from error


def _bounds(c: Object, scheduling: PolicySpec) -> Bounds:
    mode = fields.choice(c, "mode", "spec.c.", ("Auto", "Fixed"), "Auto")
    low = fields.number(c, "min", "spec.c.", (0.0, 1.0))
    high = fields.number(c, "max", "spec.c.", (0.0, 1.0), 1.0)
    if low > high:
        raise PolicyError(f"spec.c.min is {low:g} and spec.c.max {high:g}; min must not exceed max")
    if c.get("value") is None:
        if mode == "Fixed":
            raise PolicyError("spec.c.value is missing; mode Fixed needs it")
        return Bounds(mode, min(max(scheduling.c, low), high), low, high)
    if not low <= scheduling.c <= high:
        raise PolicyError(
            f"spec.c.value is {scheduling.c:g}; it must lie between min {low:g} and max {high:g}"
        )
    return Bounds(mode, scheduling.c, low, high)


def _sidecar(obj: Object) -> SidecarSettings:
    where = "spec.sidecar."
    shared = obj.get("sharedMemory")
    if shared is not None and not _is_quantity(shared, _SIZE):
        raise PolicyError(f"{where}sharedMemory is {shared!r}; give a size such as 512Mi")
    resources: Mapping[str, Mapping[str, str]] | None = None
    if obj.get("resources") is not None:
        given = fields.mapping(obj, "resources", where)
        resources = {
            part: _quantities(given, part, f"{where}resources.")
            for part in ("requests", "limits")
            if given.get(part) is not None
        }
    return SidecarSettings(
        image=fields.text(obj, "image", where, "", most=1024),
        threads=fields.whole(obj, "threads", where, (1, 64), 1),
        metrics_port=fields.whole(obj, "metricsPort", where, (1024, 65535), DEFAULT_METRICS_PORT),
        shared_memory="" if shared is None else str(shared),
        resources=resources,
    )


def _quantities(obj: Object, key: str, where: str) -> dict[str, str]:
    given = fields.mapping(obj, key, where)
    for name, value in given.items():
        if not _is_quantity(value, _QUANTITY):
            raise PolicyError(f"{where}{key}.{name} is {value!r}; give a quantity such as 500m or 2Gi")
    return {name: str(value) for name, value in given.items()}


def _is_quantity(value: Any, pattern: re.Pattern[str]) -> bool:
    return (
        isinstance(value, str | int) and not isinstance(value, bool) and bool(pattern.fullmatch(str(value)))
    )


def _telemetry(obj: Object, *, shadow: bool) -> TelemetrySettings:
    where = "spec.telemetry."
    endpoint = ""
    if obj.get("otlpEndpoint") is not None:
        endpoint = fields.matching(obj, "otlpEndpoint", where, _URL, "an http:// or https:// URL")
    return TelemetrySettings(
        endpoint,
        fields.number(obj, "sampleRatio", where, (0.0, 1.0), 0.01),
        fields.whole(obj, "decisionLogMiB", where, (0, 128), SHADOW_LOG_MIB if shadow else 0),
    )
