"""Every query of the dashboard and every alert is PromQL over metrics that exist, and answers."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from chart_kit import CASES, one, render
from metrics_kit import DOCS, Served, page, play, scrape, series_names, sidecar_registry
from promql import (
    Call,
    Expression,
    Labels,
    PromQLError,
    Scrapes,
    Selector,
    calls,
    evaluate,
    parse,
    selectors,
)

from trail_operator.metrics import Metrics as OperatorMetrics

TARGET = {"namespace", "pod", "exported_namespace"}
"""Labels that Prometheus gives: of the place a series comes from, and the operator's own of that name."""
ALL = {"namespace": ".*", "pod": ".*"}


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


def check(query: str) -> Expression:
    """Raises AssertionError or PromQLError for a query that the exported metrics cannot answer."""
    known = series_names(page())
    expression = parse(query)
    labels: set[str] = set(TARGET)
    for selector in selectors(expression):
        assert selector.name in known, f"{selector.name} is no series of docs/metrics.md"
        family, listed = known[selector.name]
        own = set(listed.labels) | ({"le"} if selector.name.endswith("_bucket") else set())
        for label, _, _ in selector.matchers:
            assert label in own | TARGET, f"{family} has no label {label}"
        grows = listed.kind in ("counter", "histogram", "summary")
        assert grows == (selector.range_s > 0), f"{selector.name}: {listed.kind}, range {selector.range_s}"
        labels |= own
    for call in calls(expression):
        for label in call.by or ():
            assert label in labels, f"by {label}: no series has it"
        if call.function == "histogram_quantile":
            (inner,) = call.arguments[1:]
            assert isinstance(inner, Call)
            assert "le" in (inner.by or ()), "quantiles need the buckets' le"
            assert all(s.name.endswith("_bucket") for s in selectors(inner))
    return expression


@pytest.mark.parametrize(("where", "query"), QUERIES)
def test_a_query_asks_for_what_there_is(where: str, query: str) -> None:
    check(query)


@pytest.mark.parametrize(
    "query",
    [
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
    ],
)
def test_a_mistake_is_noticed(query: str) -> None:
    """So that the test above can fail."""
    with pytest.raises((AssertionError, PromQLError)):
        evaluate(check(query), Scrapes({}, {}))


@pytest.mark.parametrize(("title", "target"), TARGETS)
def test_legends_name_labels_that_answers_have(title: str, target: dict[str, Any]) -> None:
    expression = parse(target["expr"])
    by = {label for call in calls(expression) for label in call.by or ()}
    plain = {label for s in selectors(expression) for label in series_names(page())[s.name][1].labels}
    for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
        assert label in (by if by else plain | TARGET), f"{title}: {label}"


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


def happen(operator: OperatorMetrics) -> None:
    """Something of everything in the operator."""
    operator.admissions.labels("injected", "").inc()
    operator.admission_seconds.observe(0.003)
    operator.withdrawals.labels("image").inc()
    operator.failures.labels("status", "refused").inc()
    operator.leader.set(1)
    operator.c.labels("shop/deployment/llama").set(0.2)
    operator.c_changes.inc()
    operator.pods.labels("shop", "llama", "ordering").set(2)


@pytest.fixture(scope="module")
def scrapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scrapes]:
    """Two scrapes of a sidecar and an operator, between which everything happened that can happen."""
    served, operator = Served(tmp_path_factory.mktemp("served")), OperatorMetrics()
    sidecar = sidecar_registry(served)
    play(served)
    happen(operator)
    before = scrape(sidecar, operator.registry)
    play(served)
    happen(operator)
    served.load(waiting=1, running=2, kv_usage=0.5, preemptions_total=2, steps_total=80)
    yield Scrapes(before, scrape(sidecar, operator.registry), variables=ALL)
    served.close()


@pytest.mark.parametrize(("title", "target"), TARGETS)
def test_a_panel_shows_something(scrapes: Scrapes, title: str, target: dict[str, Any]) -> None:
    answer = evaluate(parse(target["expr"]), scrapes)
    assert isinstance(answer, dict)
    assert answer, f"{title}: {target['expr']} answers nothing"
    assert any(not math.isnan(value) for value in answer.values()), f"{title}: {answer}"


def series(name: str, value: float, **labels: str) -> tuple[tuple[str, Labels], float]:
    return (name, tuple(sorted({"namespace": "shop", "pod": "llama-0", **labels}.items()))), value


FIRE: dict[str, tuple[list[Any], list[Any]]] = {
    "TrailNobodyActs": (
        [series("trail_operator_leader", 0)],
        [series("trail_operator_leader", 1), series("trail_operator_leader", 0, pod="other")],
    ),
    "TrailOperatorDeaf": (
        [series("trail_operator_watches_up", 1), series("trail_operator_watches_up", 0, pod="other")],
        [series("trail_operator_watches_up", 1)],
    ),
    "TrailFallingBack": (
        [series("trail_operator_pods", 1, state="fallingBack", policy="p", exported_namespace="shop")],
        [series("trail_operator_pods", 3, state="ordering", policy="p", exported_namespace="shop")],
    ),
    "TrailSidecarSilent": (
        [series("trail_engine_fallback_steps_total", 50), series("trail_engine_steps_total", 100)],
        [series("trail_engine_fallback_steps_total", 1), series("trail_engine_steps_total", 100)],
    ),
    "TrailNoPredictions": (
        [series("trail_engine_problem", 0, engine="0"), series("trail_engine_problem", 1, engine="1")],
        [series("trail_engine_problem", 0, engine="0")],
    ),
    "TrailProbeDistrusted": (
        [series("trail_predictor_trusted", 0, predictor="probe")],
        [series("trail_predictor_trusted", 1, predictor="probe"),
         series("trail_predictor_trusted", 0, predictor="prompt")],
    ),
    "TrailPredictionsWorse": (
        [series("trail_predictor_error_tokens", 40, predictor="probe"),
         series("trail_predictor_error_artefact_tokens", 20, predictor="probe")],
        [series("trail_predictor_error_tokens", 22, predictor="probe"),
         series("trail_predictor_error_tokens", 90, predictor="constant"),
         series("trail_predictor_error_artefact_tokens", 20, predictor="probe")],
    ),
    "TrailFramesLost": (
        [series("trail_frames_lost_total", 10), series("trail_frames_read_total", 90)],
        [series("trail_frames_lost_total", 1), series("trail_frames_read_total", 99)],
    ),
    "TrailRecomputes": (
        [series("trail_engine_recomputed_tokens_total", 30), series("trail_generated_tokens_total", 100)],
        [series("trail_engine_recomputed_tokens_total", 5), series("trail_generated_tokens_total", 100)],
    ),
    "TrailRedisAway": ([series("trail_redis_connected", 0)], [series("trail_redis_connected", 1)]),
    "TrailSidecarFails": (
        [series("trail_failures_total", 60, part="loop")], [series("trail_failures_total", 0, part="loop")],
    ),
    "TrailMetricsNotPushed": (
        [series("trail_otlp_pushes_total", 10, result="failed")],
        [series("trail_otlp_pushes_total", 10, result="sent")],
    ),
    "TrailWithdrawn": (
        [series("trail_operator_withdrawals_total", 1, reason="image")],
        [series("trail_operator_withdrawals_total", 0, reason="image")],
    ),
    "TrailWorkFails": (
        [series("trail_operator_failures_total", 20, part="status", cause="refused")],
        [series("trail_operator_failures_total", 0, part="status", cause="refused")],
    ),
    "TrailCertificate": (
        [series("trail_operator_certificate_failures_total", 1)],
        [series("trail_operator_certificate_failures_total", 0)],
    ),
}  # fmt: skip
"""What makes an alert fire, and what must not. A counter is what it grew by in a minute, from 0."""


def test_every_alert_is_tried() -> None:
    assert set(FIRE) == set(RULES)


@pytest.mark.parametrize("alert", FIRE)
def test_an_alert_fires_when_it_should_and_then_only(alert: str) -> None:
    query = parse(RULES[alert]["expr"])
    bad, good = FIRE[alert]
    for samples, fires in ((bad, True), (good, False)):
        before = {key: 0.0 for key, _ in samples if key[0].endswith("_total")}
        answer = evaluate(query, Scrapes(before, dict(samples)))
        assert bool(answer) is fires, (alert, samples, answer)


def test_nobody_acts_where_no_operator_is_heard_of() -> None:
    assert evaluate(parse(RULES["TrailNobodyActs"]["expr"]), Scrapes({}, {}))


def test_alerts_say_what_and_what_to_do() -> None:
    page_of_alerts = (DOCS / "kubernetes" / "troubleshoot.md").read_text(encoding="utf-8")
    for name, rule in RULES.items():
        assert rule["labels"]["severity"] in ("info", "warning"), name
        assert set(rule["annotations"]) == {"summary", "description"}, name
        assert f"`{name}`" in page_of_alerts, name


def test_thresholds_are_values() -> None:
    values = {"metrics": {"prometheusRule": {"enabled": True, "thresholds": {"recomputeShare": 0.07}}}}
    rules = one(render(values), "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert "> 0.07" in next(rule["expr"] for rule in rules if rule["alert"] == "TrailRecomputes")


def test_selectors_match_as_prometheus_does() -> None:
    samples = dict([series("a", 1.0, x="one"), series("a", 2.0, x="two")])
    found = {
        matcher: sorted(value for _, _, value in Scrapes({}, samples).select(parse(f"a{{{matcher}}}")))  # type: ignore[arg-type]
        for matcher in ('x="one"', 'x!="one"', 'x=~"o.*|two"', 'x!~"t.*"', 'y=""')
    }
    assert list(found.values()) == [[1.0], [2.0], [1.0, 2.0], [1.0], [1.0, 2.0]]
    assert isinstance(parse("a"), Selector)
