"""Every query of the dashboard and every alert asks for metrics that exist, and a real Prometheus answers."""

import json
import math
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from chart_kit import CASES, Ask, one, render
from metrics_kit import check_query
from service_kit import EngineStream, SidecarProcess, until

from benchmarks.observe.prometheus import ADVICE, INSTALLED, Prometheus, QueryError, fill_in
from trail.wire.v1 import trail_pb2


def dashboard() -> dict[str, Any]:
    text = one(render(CASES["on"]), "ConfigMap", "-dashboard")["data"]["trail.json"]
    found: dict[str, Any] = json.loads(text)
    return found


PANELS = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
RULES = {
    rule["alert"]: rule
    for group in one(render(CASES["on"]), "PrometheusRule")["spec"]["groups"]
    for rule in group["rules"]
}
QUERIES = [(f"{title} {target['refId']}", target["expr"]) for title, target in TARGETS] + [
    (name, rule["expr"]) for name, rule in RULES.items()
]

PLACE = {"namespace": "shop", "pod": "llama-0"}


@pytest.mark.parametrize(("where", "query"), QUERIES)
def test_a_query_asks_for_what_there_is(where: str, query: str) -> None:
    assert check_query(query)


def test_a_running_sidecar_and_operator_export_what_is_asked_for(ask: Ask) -> None:
    for name in set().union(*(check_query(query) for _, query in QUERIES)):
        assert ask(name), f"{name} is not scraped"


MISTAKES = [
    "trail_nothing",
    "rate(trail_frames_read_total)",
    "rate(trail_policy_c[5m])",
    "trail_frames_read_total",
    'trail_policy_c{engine="0"}',
    "sum by (reason) (trail_policy_c)",
    "histogram_quantile(0.5, sum(rate(trail_queue_seconds_bucket[5m])))",
    "sum by (pod) (trail_policy_c",
    "trail_policy_c trail_policy_c",
    "deriv(trail_policy_c[5m])",
    "trail_policy_c[5m]",
]


@pytest.mark.parametrize("query", MISTAKES)
def test_a_mistake_is_noticed(query: str, ask: Ask) -> None:
    """So that the tests around this one can fail."""

    def answers() -> bool:
        return bool(check_query(query) and ask(query))

    with pytest.raises((AssertionError, QueryError)):
        assert answers()


@pytest.mark.parametrize(("title", "target"), TARGETS)
def test_a_panel_shows_something(title: str, target: dict[str, Any], ask: Ask) -> None:
    answer = ask(target["expr"])
    assert any(not math.isnan(value) for _, value in answer), f"{title}: {target['expr']} answers {answer}"
    for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
        assert any(label in labels for labels, _ in answer), f"{title}: the legend's {label} is in no answer"


@pytest.mark.skipif(not INSTALLED, reason=ADVICE)
def test_the_process_of_a_sidecar_is_scraped(tmp_path: Path) -> None:
    sidecar = SidecarProcess(tmp_path / "run", "--policy", "fcfs")
    try:
        until(sidecar.board)
        stream = EngineStream(sidecar.directory)
        stream.hello()
        stream.send(load=trail_pb2.Load(waiting=2, running=3))
        prometheus = Prometheus(tmp_path, {f"127.0.0.1:{until(sidecar.metrics_port)}": PLACE})
        try:
            wanted = {"connected": 1.0, "in order": 0.0, "waiting": 2.0, "running": 3.0}
            queries = {target["legendFormat"]: fill_in(target["expr"]) for _, target in TARGETS}

            def shown() -> dict[str, float]:
                at_s = prometheus.scrape()
                return {name: value for name in wanted for _, value in prometheus.query(queries[name], at_s)}

            until(lambda: shown() == wanted, limit_s=60)
        finally:
            prometheus.close()
        stream.close()
    finally:
        sidecar.end()


def test_panels_have_their_places() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["description"], panel["title"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows[:5] == [
        "Is it on?", "Is it helping?", "Why do requests wait?", "What is c, and why?",
        "Is the probe still right?",
    ]  # fmt: skip


MINUTES = 120


def series(name: str, value: float, **labels: str) -> dict[str, str]:
    """A gauge's value, or what a counter grows by in a minute, as promtool's tests have it."""
    text = ",".join(f'{label}="{wanted}"' for label, wanted in {**PLACE, **labels}.items())
    start, growth = (0, value) if name.endswith("_total") else (value, 0)
    return {"series": f"{name}{{{text}}}", "values": f"{start}+{growth}x{MINUTES}"}


@dataclass(frozen=True)
class Case:
    """What makes an alert fire, with its labels, and what must not."""

    fires: list[dict[str, str]]
    rests: list[dict[str, str]]
    labels: dict[str, str] = field(default_factory=PLACE.copy)


ALERTS = {
    "TrailNobodyActs": Case(
        [series("trail_operator_leader", 0)],
        [series("trail_operator_leader", 1), series("trail_operator_leader", 0, pod="other")],
        labels={},
    ),
    "TrailOperatorDeaf": Case(
        [series("trail_operator_watches_up", 1), series("trail_operator_watches_up", 0, pod="other")],
        [series("trail_operator_watches_up", 1)],
        labels={**PLACE, "pod": "other"},
    ),
    "TrailFallingBack": Case(
        [series("trail_operator_pods", 1, state="fallingBack", policy="p", exported_namespace="llm")],
        [series("trail_operator_pods", 3, state="ordering", policy="p", exported_namespace="llm")],
        labels={"namespace": "shop", "exported_namespace": "llm", "policy": "p"},
    ),
    "TrailSidecarSilent": Case(
        [series("trail_engine_fallback_steps_total", 50), series("trail_engine_steps_total", 100)],
        [series("trail_engine_fallback_steps_total", 1), series("trail_engine_steps_total", 100)],
    ),
    "TrailNoPredictions": Case(
        [series("trail_engine_problem", 0, engine="0"), series("trail_engine_problem", 1, engine="1")],
        [series("trail_engine_problem", 0, engine="0")],
    ),
    "TrailProbeDistrusted": Case(
        [series("trail_predictor_trusted", 0, predictor="probe")],
        [series("trail_predictor_trusted", 1, predictor="probe"),
         series("trail_predictor_trusted", 0, predictor="prompt")],
    ),
    "TrailPredictionsWorse": Case(
        [series("trail_predictor_error_tokens", 40, predictor="probe"),
         series("trail_predictor_error_artefact_tokens", 20, predictor="probe")],
        [series("trail_predictor_error_tokens", 22, predictor="probe"),
         series("trail_predictor_error_tokens", 90, predictor="constant"),
         series("trail_predictor_error_artefact_tokens", 20, predictor="probe")],
    ),
    "TrailFramesLost": Case(
        [series("trail_frames_lost_total", 10), series("trail_frames_read_total", 90)],
        [series("trail_frames_lost_total", 1), series("trail_frames_read_total", 99)],
    ),
    "TrailRecomputes": Case(
        [series("trail_engine_recomputed_tokens_total", 30), series("trail_generated_tokens_total", 100)],
        [series("trail_engine_recomputed_tokens_total", 5), series("trail_generated_tokens_total", 100)],
    ),
    "TrailRedisAway": Case([series("trail_redis_connected", 0)], [series("trail_redis_connected", 1)]),
    "TrailSidecarFails": Case(
        [series("trail_failures_total", 60, part="loop")], [series("trail_failures_total", 0, part="loop")],
        labels={**PLACE, "part": "loop"},
    ),
    "TrailMetricsNotPushed": Case(
        [series("trail_otlp_pushes_total", 10, result="failed")],
        [series("trail_otlp_pushes_total", 10, result="sent")],
    ),
    "TrailWithdrawn": Case(
        [series("trail_operator_withdrawals_total", 1, reason="image")],
        [series("trail_operator_withdrawals_total", 0, reason="image")],
        labels={**PLACE, "reason": "image"},
    ),
    "TrailWorkFails": Case(
        [series("trail_operator_failures_total", 20, part="status", cause="refused")],
        [series("trail_operator_failures_total", 0, part="status", cause="refused")],
        labels={"part": "status", "cause": "refused"},
    ),
    "TrailCertificate": Case(
        [series("trail_operator_certificate_failures_total", 1)],
        [series("trail_operator_certificate_failures_total", 0)],
    ),
}  # fmt: skip


def test_every_alert_is_tried() -> None:
    assert set(ALERTS) == set(RULES)


def promtool(alert: str, directory: Path, *stated: tuple[list[dict[str, str]], int, bool]) -> None:
    """Fails where an alert, after minutes of given series, fires otherwise than stated."""
    rule = RULES[alert]
    firing = {"exp_labels": ALERTS[alert].labels | rule["labels"], "exp_annotations": rule["annotations"]}
    tests = [
        {"interval": "1m", "input_series": given, "alert_rule_test": [
            {"alertname": alert, "eval_time": f"{minutes}m", "exp_alerts": [firing] if fires else []}
        ]}
        for given, minutes, fires in stated
    ]  # fmt: skip
    (directory / "rules.yml").write_text(json.dumps({"groups": [{"name": "trail", "rules": [rule]}]}))
    file = directory / "test.yml"
    file.write_text(json.dumps({"rule_files": ["rules.yml"], "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not INSTALLED, reason=ADVICE)
@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_when_it_should_and_then_only(alert: str, tmp_path: Path) -> None:
    case, waits = ALERTS[alert], int(RULES[alert].get("for", "0m").removesuffix("m"))
    early = [(case.fires, waits - 1, False)] if waits else []
    promtool(alert, tmp_path, (case.fires, MINUTES, True), (case.rests, MINUTES, False), *early)


@pytest.mark.skipif(not INSTALLED, reason=ADVICE)
def test_nobody_acts_where_no_operator_is_heard_of(tmp_path: Path) -> None:
    promtool("TrailNobodyActs", tmp_path, ([], MINUTES, True))


def test_alerts_say_what_and_what_to_do() -> None:
    for name, rule in RULES.items():
        assert rule["labels"]["severity"] in ("info", "warning"), name
        assert set(rule["annotations"]) == {"summary", "description"}, name


def test_thresholds_are_values() -> None:
    values = {"metrics": {"prometheusRule": {"enabled": True, "thresholds": {"recomputeShare": 0.07}}}}
    rules = one(render(values), "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert "> 0.07" in next(rule["expr"] for rule in rules if rule["alert"] == "TrailRecomputes")
