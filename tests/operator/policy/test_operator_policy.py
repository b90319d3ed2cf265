"""The CRD and the parser say the same: one is what the server checks, the other what the operator reads."""

import copy
import functools
import json
import re
from typing import Any

import celpy
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_kit import GOLDEN, crd_version, load_documents, make_policy

from trail.policy.spec import POLICY_NAMES, SIZES, PolicySpec
from trail.predict.manifest import MANIFEST_FILE, PROBE_FILE, PROMPT_FILES
from trail_operator.admission import containers
from trail_operator.policy import resource as policy
from trail_operator.policy.fields import PolicyError
from trail_operator.policy.resource import parse_policy

SCHEMA: dict[str, Any] = crd_version()["schema"]["openAPIV3Schema"]


celpy.Environment()  # raises the recursion limit, which must not happen inside a property


@functools.cache
def compiled(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """What the API server stores: defaults filled in, unknown fields pruned, nulls replaced."""
    if schema.get("type") == "object" and isinstance(value, dict):
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        out: dict[str, Any] = {}
        for key, child in properties.items():
            if value.get(key) is not None:
                out[key] = with_defaults(value[key], child)
            elif "default" in child:
                out[key] = with_defaults(copy.deepcopy(child["default"]), child)
        if isinstance(extra, dict):
            out |= {k: with_defaults(v, extra) for k, v in value.items()}
        return out if properties or extra else value
    if schema.get("type") == "number" and type(value) is int:
        return float(value)  # as CEL has it
    if schema.get("type") == "array" and isinstance(value, list):
        return [with_defaults(item, schema["items"]) for item in value]
    return value


def cel_failures(value: Any, schema: dict[str, Any]) -> list[str]:
    """Messages of the CEL rules that a value breaks, at any depth."""
    out = []
    for rule in schema.get("x-kubernetes-validations", ()):
        if not compiled(rule["rule"]).evaluate({"self": celpy.json_to_cel(value)}):
            out.append(rule["message"])
    for key, child in schema.get("properties", {}).items():
        if isinstance(value, dict) and key in value:
            out += cel_failures(value[key], child)
    if isinstance(value, list) and "items" in schema:
        out += [message for item in value for message in cel_failures(item, schema["items"])]
    return out


def server_accepts(obj: dict[str, Any]) -> bool:
    """Whether a server with CEL would store the object."""
    stored = with_defaults(obj, SCHEMA)
    try:
        jsonschema.validate(stored, SCHEMA, cls=jsonschema.Draft7Validator)
    except jsonschema.ValidationError:
        return False
    return not cel_failures(stored, SCHEMA)


def operator_accepts(obj: dict[str, Any]) -> bool:
    try:
        parse_policy(obj)
    except PolicyError:
        return False
    return True


NUMBERS = st.one_of(st.sampled_from([-2, -1, 0, 0.5, 1, 2, 1e6, 1e7]), st.floats(-2, 3, allow_nan=False))
WHOLE = st.sampled_from([-2, -1, 0, 1, 2, 64, 65, 1023, 1024, 65535, 65536, 10_001])
TEXT = st.sampled_from(
    [
        "",
        "a",
        "/a",
        "a/b",
        "../a",
        "./a",
        "/a b",
        "512Mi",
        "0",
        "1.5Gi",
        "x" * 1025,
        "500m",
        "http://x",
        "https://x/y?z",
        "ftp://x",
        "a\nb",
        "0" * 64,
        "G" * 64,
    ]
)


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


SOURCES = {
    "image": maybe(reference=TEXT, path=TEXT),
    "persistentVolumeClaim": maybe(claimName=TEXT, path=TEXT),
    "configMap": maybe(name=TEXT),
    "url": maybe(location=TEXT, sha256=TEXT),
}
QUANTITIES = st.dictionaries(st.sampled_from(["cpu", "memory"]), st.one_of(TEXT, WHOLE), max_size=2)
SPECS = maybe(
    workloads=maybe(
        selector=maybe(
            matchLabels=st.dictionaries(
                st.sampled_from(["a", "b"]), TEXT.filter(lambda t: len(t) < 254), max_size=2
            ),
            matchExpressions=st.lists(
                maybe(
                    key=st.sampled_from(["a", "b"]),
                    operator=st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt"]),
                    values=st.lists(st.sampled_from(["a", "b"]), max_size=2),
                ),
                max_size=2,
            ),
        )
    ),
    predictor=maybe(layer=WHOLE, **SOURCES),
    everySteps=WHOLE,
    policy=maybe(
        name=st.sampled_from([*POLICY_NAMES, "trial"]),
        kappa=NUMBERS,
        preemptRatio=NUMBERS,
        maxPreemptions=WHOLE,
        kvReserveTokens=NUMBERS,
        size=st.sampled_from([*SIZES, "mean"]),
        shadow=st.sampled_from([True, False, "yes"]),
    ),
    c=maybe(mode=st.sampled_from(["Auto", "Fixed", "auto"]), value=NUMBERS, min=NUMBERS, max=NUMBERS),
    sidecar=maybe(
        image=TEXT,
        threads=WHOLE,
        metricsPort=WHOLE,
        sharedMemory=st.one_of(TEXT, WHOLE),
        resources=maybe(requests=QUANTITIES, limits=QUANTITIES),
    ),
    engine=maybe(image=TEXT),
    telemetry=maybe(otlpEndpoint=TEXT, sampleRatio=NUMBERS, decisionLogMiB=WHOLE),
    quality=st.sampled_from(["Watch", "Act", "act"]),
)


@st.composite
def nearly_right(draw: st.DrawFn) -> dict[str, Any]:
    """A valid policy with a few parts exchanged: drawn at random, hardly any would be valid."""
    obj = make_policy()
    replaced = draw(SPECS)
    for key in draw(st.lists(st.sampled_from(sorted(replaced) or ["c"]), max_size=2, unique=True)):
        if key in replaced:
            obj["spec"][key] = replaced[key]
    return obj


@settings(max_examples=600, deadline=None)
@given(obj=nearly_right())
def test_server_and_operator_accept_the_same_policies(obj: dict[str, Any]) -> None:
    assert server_accepts(obj) == operator_accepts(obj)


@settings(max_examples=300, deadline=None)
@given(obj=nearly_right())
def test_what_the_server_fills_in_is_what_the_parser_assumes(obj: dict[str, Any]) -> None:
    if operator_accepts(obj):
        assert parse_policy(obj) == parse_policy(with_defaults(obj, SCHEMA))


@settings(max_examples=300, deadline=None)
@given(
    spec=st.recursive(
        st.none() | st.booleans() | NUMBERS | TEXT,
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "predictor",
                        "c",
                        "policy",
                        "sidecar",
                        "workloads",
                        "selector",
                        "image",
                        "resources",
                        "layer",
                        "min",
                    ]
                ),
                x,
                max_size=4,
            )
        ),
    )
)
def test_rubbish_is_refused_by_name_and_nothing_else(spec: Any) -> None:
    obj = {"metadata": {"name": "a", "namespace": "b"}, "spec": spec}
    if not operator_accepts(obj):
        with pytest.raises(PolicyError, match=r"^spec"):
            parse_policy(obj)


def test_the_golden_policies_are_valid() -> None:
    for obj in load_documents(GOLDEN / "policies.yaml"):
        assert server_accepts(obj)
        assert operator_accepts(obj)


def test_the_schema_is_structural() -> None:
    """What an API server would refuse a CRD for, as far as it can be told without one."""

    def walk(schema: dict[str, Any], where: str) -> None:
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), where
        assert "$ref" not in schema, where
        assert not {"oneOf", "not", "definitions"} & set(schema), where
        assert not ("properties" in schema and "additionalProperties" in schema), where
        for key, child in schema.get("properties", {}).items():
            walk(child, f"{where}.{key}")
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), dict):
                walk(schema[key], f"{where}[]")

    walk(SCHEMA, "")
    assert crd_version()["subresources"] == {"status": {}}


def test_names_and_ranges_are_those_of_the_scheduling_policies() -> None:
    fields = SCHEMA["properties"]["spec"]["properties"]["policy"]["properties"]
    assert tuple(fields["name"]["enum"]) == POLICY_NAMES
    assert fields["name"]["default"] == PolicySpec().name
    assert tuple(fields["size"]["enum"]) == SIZES
    for name in POLICY_NAMES:
        assert parse_policy(make_policy(policy={"name": name})).scheduling == PolicySpec(name)
    full = parse_policy(
        make_policy(
            policy={
                "name": "adaptive",
                "kappa": 2,
                "preemptRatio": 3,
                "maxPreemptions": 4,
                "kvReserveTokens": 5,
                "size": "gittins",
            },
            c={"value": 0.25},
        )
    )
    assert full.scheduling == PolicySpec("adaptive", 0.25, 5.0, 2.0, 3.0, 4, "gittins")


def test_c_starts_within_its_bounds() -> None:
    assert parse_policy(make_policy(c={"max": 0.3})).scheduling.c == 0.3
    assert parse_policy(make_policy(c={"mode": "Fixed", "value": 0.1})).c == policy.Bounds(
        "Fixed", 0.1, 0.0, 1.0
    )


def test_a_config_map_has_a_key_for_every_file_of_an_artefact() -> None:
    files = {MANIFEST_FILE, PROBE_FILE, *PROMPT_FILES}
    assert set(containers._CONFIG_MAP_ITEMS.values()) == files
    assert all(re.fullmatch(r"[-._a-zA-Z0-9]+", key) for key in containers._CONFIG_MAP_ITEMS)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"predictor": None}, "spec.predictor is missing"),
        ({"predictor": {"layer": 1}}, "names no source"),
        (
            {"predictor": {"layer": 1, "configMap": {"name": "a"}, "image": {"reference": "b"}}},
            "image and configMap",
        ),
        ({"predictor": {"layer": -1, "configMap": {"name": "a"}}}, "spec.predictor.layer is -1"),
        ({"policy": {"name": "trial"}}, "unknown policy 'trial'"),
        ({"c": {"min": 0.5, "max": 0.2}}, "min must not exceed max"),
        ({"c": {"mode": "Fixed"}}, "mode Fixed needs it"),
        ({"c": {"value": 0.9, "max": 0.5}}, "between min 0 and max 0.5"),
        ({"everySteps": 0}, "spec.everySteps is 0"),
        ({"quality": "act"}, "spec.quality is 'act'; choose one of Act, Watch"),
        ({"policy": {"shadow": "yes"}}, "spec.policy.shadow is 'yes'; give true or false"),
        ({"telemetry": {"decisionLogMiB": 129}}, "a whole number from 0 to 128"),
        ({"sidecar": {"sharedMemory": "lots"}}, "512Mi"),
        ({"sidecar": {"resources": {"limits": {"cpu": True}}}}, "spec.sidecar.resources.limits.cpu is True"),
        (
            {"workloads": {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}},
            "In and NotIn need some",
        ),
        ([], "spec is []"),
    ],
)
def test_an_error_names_the_field_and_what_to_do(spec: Any, says: str) -> None:
    obj = make_policy(**spec) if isinstance(spec, dict) else {**make_policy(), "spec": spec}
    with pytest.raises(PolicyError, match=re.escape(says)):
        parse_policy(obj)
    assert json.dumps(obj)
