"""The manifests of docs/autoscaling.md are valid, and ask for metrics that exist."""

import json
import re
from typing import Any

import grpc
import kubernetes_validate
import pytest
import yaml
from chart_kit import Ask
from google.protobuf.json_format import ParseDict
from metrics_kit import DOCS, check_query, page, series_names

from trail.wire.names import DEFAULT_METRICS_PORT
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

TEXT = (DOCS / "autoscaling.md").read_text(encoding="utf-8")
BLOCKS: list[dict[str, Any]] = [
    yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
]


def one(kind: str) -> dict[str, Any]:
    (found,) = [block for block in BLOCKS if block.get("kind") == kind]
    return found


def adapter() -> dict[str, Any]:
    (found,) = [block["rules"]["custom"][0] for block in BLOCKS if "rules" in block]
    return found


@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "Deployment"])
@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_kubernetes_takes_its_own_kinds(kind: str, version: str) -> None:
    kubernetes_validate.validate(one(kind), version, strict=True)


def test_a_misspelt_field_is_refused() -> None:
    """So that the test above can fail."""
    autoscaler = one("HorizontalPodAutoscaler")
    wrong = {**autoscaler, "spec": {**autoscaler["spec"], "minReplica": 1}}
    with pytest.raises(Exception, match="minReplica"):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_keda_asks_for_one_number_of_what_there_is(ask: Ask) -> None:
    spec = one("ScaledObject")["spec"]
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "prometheus"
    # KEDA's metadata are strings, all of them.
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert float(trigger["metadata"]["threshold"]) > 0
    assert check_query(trigger["metadata"]["query"])
    ((labels, tokens),) = ask(trigger["metadata"]["query"])
    assert labels == {}
    assert tokens > 0


def test_the_adapter_serves_what_the_autoscaler_asks_for(ask: Ask) -> None:
    rule = adapter()
    (name,) = check_query(rule["seriesQuery"])
    assert ask(rule["seriesQuery"])
    query = rule["metricsQuery"].replace("<<.Series>>", name).replace("<<.GroupBy>>", "pod")
    query = query.replace("<<.LabelMatchers>>", 'namespace="shop"')
    assert check_query(query)
    assert [labels for labels, _ in ask(query)] == [{"pod": "llama-0"}]
    (metric,) = one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]


def test_the_picker_reads_metrics_that_exist_on_the_sidecars_port() -> None:
    config = one("EndpointPickerConfig")
    names = {plugin.get("name", plugin["type"]) for plugin in config["plugins"]}
    (profile,) = config["schedulingProfiles"]
    (source,) = config["dataLayer"]["sources"]
    referred = [*profile["plugins"], source, *source["extractors"]]
    assert {reference["pluginRef"] for reference in referred} == names
    extractor = next(plugin for plugin in config["plugins"] if plugin["type"] == "core-metrics-extractor")
    (engine,) = extractor["parameters"]["engineConfigs"]
    gauges = {name for name, (_, listed) in series_names(page()).items() if listed.kind == "gauge"}
    assert {engine[key] for key in engine if key.endswith("Spec")} <= gauges
    (container,) = one("Deployment")["spec"]["template"]["spec"]["containers"]
    assert f"--model-server-metrics-port={DEFAULT_METRICS_PORT}" in container["args"]


def test_the_answer_over_grpc_is_of_the_contract() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    stated = json.loads(text)
    message = ParseDict(stated, trail_pb2.BacklogResponse())
    fields = {field.json_name for field in trail_pb2.EngineBacklog.DESCRIPTOR.fields}
    assert fields == set(stated["engines"][0])
    assert message.engines[0].waiting_requests == 12


def test_the_example_in_python_runs() -> None:
    class Observe(trail_pb2_grpc.ObserveServicer):
        def Backlog(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            engine = trail_pb2.EngineBacklog(engine=1, waiting_tokens=30, running_tokens=10, tokens_per_s=20)
            return trail_pb2.BacklogResponse(engines=[engine, trail_pb2.EngineBacklog(engine=2)])

    from concurrent import futures

    server = grpc.server(futures.ThreadPoolExecutor(1))
    trail_pb2_grpc.add_ObserveServicer_to_server(Observe(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code.replace("127.0.0.1:9465", f"127.0.0.1:{port}"), scope)  # noqa: S102 - our own page
    server.stop(0)
    assert scope["seconds"] == {1: 2.0}


def test_metrics_of_the_table_exist() -> None:
    rows = re.findall(r"^\| `(trail_\w+)(?:\{([\w, ]+)\})?`", TEXT, re.MULTILINE)
    assert len(rows) == 6
    for name, labels in rows:
        assert set(labels.split(", ") if labels else ()) == set(page()[name].labels), name
