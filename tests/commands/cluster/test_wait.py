"""`trail enable` and `trail disable` say what is seen, until it is there."""

import io
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cluster_kit import (
    DEPLOYMENTS,
    PODS,
    POLICIES,
    StepClock,
    Trail,
    make_deployment,
    pods_of,
    rolled,
    stamps,
)
from fake_api import FakeApi
from operator_kit import make_policy

from trail.commands.cluster.wait import Lines, selector

Object = dict[str, Any]

LLAMA = f"{DEPLOYMENTS}/llama"
ASKS = {"trail.dev/inject": "enabled"}
WITHDRAWN = {"workload": "llm/deployment/llama", "hash": "x", "reason": "ImagePullFailed",
             "message": "no such image", "since": "2026-01-01T00:00:00Z"}  # fmt: skip
READS = [("GET", "pods"), ("GET", "/apis/apps/v1/deployments"), ("GET", "trailpolicies")]


class World:
    """What operator, controllers and kubelet do with the Deployment `llama`, step by step."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        api.put(LLAMA, rolled(make_deployment()))
        self.pods(None)

    def become(self, notes: dict[str, str] | None = None, **numbers: Any) -> None:
        """The operator has changed its template, or its controller has rolled it so far."""
        obj = self.api.objects[LLAMA]
        present = obj["spec"]["template"]["metadata"].get("annotations")
        self.api.put(LLAMA, rolled(obj, present if notes is None else notes, **numbers))

    def pods(self, policy: Object | None, number: int = 2) -> None:
        """These pods are there, and no others."""
        for place in [p for p in self.api.objects if p.startswith(f"{PODS}/llama")]:
            del self.api.objects[place]
        for pod in pods_of(self.api.objects[LLAMA], policy, number):
            self.api.put(f"{PODS}/{pod['metadata']['name']}", pod)

    def withdraw(self) -> None:
        """The operator has taken TRAIL back."""
        self.api.put(f"{POLICIES}/default", {**make_policy(), "status": {"withdrawn": [WITHDRAWN]}})

    def annotate(self, value: str | None) -> None:
        """Somebody else sets the annotation."""
        notes = {} if value is None else {"trail.dev/inject": value}
        self.api.objects[LLAMA]["metadata"]["annotations"] = notes


@pytest.fixture
def world(api: FakeApi) -> World:
    return World(api)


def on(world: World) -> None:
    """It runs with TRAIL."""
    world.annotate("enabled")
    world.become(stamps())
    world.pods(make_policy())


def test_enable_tells_each_change_until_all_pods_run_with_it(
    world: World, clock: StepClock, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.steps = [
        lambda: None,
        partial(world.become, stamps(), updated=0),
        partial(world.become, updated=1),
        lambda: (world.become(), world.pods(make_policy())),
    ]
    assert trail("enable", "deploy/llama") == 0
    assert capsys.readouterr().out.splitlines() == [
        "deployment/llama: annotated; waiting for the operator trail-system/trail-operator",
        "deployment/llama: stamped; 0 of 2 pods are updated",
        "deployment/llama: stamped; 1 of 2 pods are updated",
        "deployment/llama: TRAIL is on by TrailPolicy llm/default: 2 of 2 pods run with it",
    ]
    assert not clock.steps


def test_disable_tells_each_change_until_no_pod_runs_with_it(
    world: World, clock: StepClock, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    on(world)
    clock.steps = [partial(world.become, {}, updated=1), lambda: (world.become(), world.pods(None))]
    assert trail("disable", "deploy/llama") == 0
    assert capsys.readouterr().out.splitlines() == [
        "deployment/llama: the annotation is removed; waiting for the operator trail-system/trail-operator",
        "deployment/llama: without a stamp; 1 of 2 pods are updated",
        "deployment/llama: TRAIL is off: 2 of 2 pods run without it",
    ]


@pytest.mark.parametrize("name", ["enable", "disable"])
def test_what_is_as_it_should_be_is_not_waited_for(
    world: World, trail: Trail, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "enable":
        on(world)
    assert trail(name, "deploy/llama") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("deployment/llama: nothing to do: TRAIL is o")


def test_a_deaf_operator_is_told_after_the_time_out(
    world: World, clock: StepClock, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fault that this command is there for: nothing happens at all."""
    before_s = clock.now_s()
    assert trail("enable", "deploy/llama", "--timeout", "7.5") == 3
    assert clock.now_s() - before_s == 7.5
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    assert "waited 7.5 s for the operator" in said.err
    assert "kubectl -n trail-system logs deploy/trail-operator" in said.err
    assert said.err.endswith("The annotation stays\n")
    assert world.api.objects[LLAMA]["metadata"]["annotations"] == ASKS


@pytest.mark.parametrize("name", ["enable", "disable"])
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_out_that_is_none_is_refused(trail: Trail, name: str, seconds: str) -> None:
    with pytest.raises(SystemExit) as end:
        trail(name, "deploy/llama", "--timeout", f" {seconds}")
    assert end.value.code == 2


def test_a_rollout_that_stands_is_told_with_what_keeps_it(
    world: World, clock: StepClock, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}

    def stand() -> None:
        world.become(stamps(), updated=1)
        world.pods(make_policy(), 1)
        world.api.objects[f"{PODS}/llama-5f-x-0"]["status"] = {"conditions": [scheduled]}

    clock.steps = [stand]
    assert trail("enable", "deploy/llama", "--timeout", "9") == 3
    said = capsys.readouterr().err
    assert "for its pods to roll" in said
    assert "pod llama-5f-x-0 is not scheduled (Unschedulable): no room" in said


def test_a_withdrawal_in_the_middle_ends_it(
    world: World, clock: StepClock, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.steps = [partial(world.become, stamps(), updated=1), world.withdraw]
    assert trail("enable", "deploy/llama") == 1
    assert "TRAIL is taken back from it (ImagePullFailed: no such image" in capsys.readouterr().out


def test_an_injection_that_is_taken_back_is_not_announced(
    world: World, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    world.withdraw()
    assert trail("enable", "deploy/llama") == 1
    out = capsys.readouterr().out
    assert "not annotated; nothing would be injected (Withdrawn): ImagePullFailed: no such image" in out
    assert "change TrailPolicy llm/default" in out
    assert all(method == "GET" for method, _ in world.api.calls)


def test_what_another_controller_owns_is_not_announced(
    world: World, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = {"kind": "InferenceService", "name": "llama", "controller": True}
    world.api.objects[LLAMA]["metadata"]["ownerReferences"] = [owner]
    assert trail("enable", "deploy/llama") == 1
    assert "nothing is injected (OwnedWorkload): InferenceService llama owns it" in capsys.readouterr().out


def test_pods_that_came_up_without_it_are_named(
    world: World, clock: StepClock, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.steps = [lambda: (world.become(stamps()), world.pods(None))]
    assert trail("enable", "deploy/llama") == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-3] == "deployment/llama: 2 of 2 new pods came up without TRAIL"
    assert out[-1] == "  llama-5f-x-1: the webhook was not asked; see `trail explain-injection llama-5f-x-1`"


def test_a_tool_that_undoes_the_annotation_is_noticed(
    world: World, clock: StepClock, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.steps = [partial(world.annotate, None)]
    assert trail("enable", "deploy/llama") == 1
    assert "does a tool undo changes?" in capsys.readouterr().out


def test_a_workload_that_goes_ends_it(
    world: World, clock: StepClock, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.steps = [partial(world.api.objects.pop, LLAMA)]
    assert trail("enable", "deploy/llama") == 1
    assert "deployment/llama: it is gone" in capsys.readouterr().out


@pytest.mark.parametrize("down", [0, 500, 503, 429])
def test_a_server_that_is_away_for_a_while_is_waited_for(
    world: World, clock: StepClock, trail: Trail, down: int, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.steps = [
        partial(setattr, world.api, "down", down),
        lambda: (setattr(world.api, "down", None), world.become(stamps()), world.pods(make_policy())),
    ]
    assert trail("enable", "deploy/llama") == 0
    out = capsys.readouterr().out
    assert "deployment/llama: the cluster does not answer (" in out
    assert "TRAIL is on" in out


def test_a_server_that_stays_away_is_told_with_what_was_seen_before(
    world: World, clock: StepClock, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.steps = [partial(setattr, world.api, "down", 503)]
    assert trail("enable", "deploy/llama", "--timeout", "3") == 3
    said = capsys.readouterr().err
    assert "Last seen: annotated; waiting for the operator" in said
    assert "Since then the cluster does not answer (503" in said


def test_rights_that_go_in_the_middle_are_said(
    world: World, clock: StepClock, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.steps = [partial(setattr, world.api, "down", 401)]
    assert trail("enable", "deploy/llama") == 1
    assert "log in again" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["enable", "disable"])
@pytest.mark.parametrize("refused", READS, ids=lambda r: r[1])
def test_what_one_may_not_see_costs_a_sentence_and_not_the_command(
    world: World, clock: StepClock, trail: Trail, name: str, refused: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if name == "disable":
        on(world)
    world.api.refused.add(refused)
    end = (stamps(), make_policy()) if name == "enable" else ({}, None)
    clock.steps = [lambda: None, lambda: (world.become(end[0]), world.pods(end[1]))]
    assert trail(name, "deploy/llama") == 0
    out = capsys.readouterr().out
    assert ("you may not list them" in out) == (refused[1] == "pods")
    assert ("which you may not look at" in out) == (refused[1] == "/apis/apps/v1/deployments")


@pytest.mark.parametrize("name", ["enable", "disable"])
def test_with_no_right_but_to_the_workload_it_works(
    world: World, clock: StepClock, trail: Trail, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "disable":
        on(world)
    world.api.refused |= {*READS, ("GET", "/api/v1/namespaces")}
    clock.steps = [partial(world.become, stamps() if name == "enable" else {})]
    assert trail(name, "deploy/llama") == 0
    assert "what they carry is not known" in capsys.readouterr().out
    listed = [where for method, where in world.api.calls if where == PODS]
    assert len(listed) == 1


def test_without_waiting_and_rights_the_policy_is_not_guessed(
    world: World, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    world.api.refused.add(("GET", "trailpolicies"))
    assert trail("enable", "deploy/llama", "--no-wait") == 0
    assert "which TrailPolicy applies cannot be seen with your rights" in capsys.readouterr().out


def test_an_operator_that_has_stamped_is_left_in_peace(world: World, clock: StepClock, trail: Trail) -> None:
    clock.steps = [partial(world.become, stamps(), updated=0), *[lambda: None] * 5,
                   lambda: (world.become(), world.pods(make_policy()))]  # fmt: skip
    assert trail("enable", "deploy/llama") == 0
    looked = [where for _, where in world.api.calls if where == "/apis/apps/v1/deployments"]
    # Before the annotation, before the stamp, and when it is seen.
    assert len(looked) == 3


def test_nothing_but_the_annotation_is_written(world: World, clock: StepClock, trail: Trail) -> None:
    clock.steps = [lambda: (world.become(stamps()), world.pods(make_policy()))]
    assert trail("enable", "deploy/llama") == 0
    assert [call for call in world.api.calls if call[0] != "GET"] == [("PATCH", LLAMA)]


INTERRUPTED = """
import sys
from trail.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("name", "left"), [("enable", "stays"), ("disable", "stays removed")])
def test_an_interrupt_says_that_the_annotation_stays(
    world: World, name: str, left: str, tmp_path: Path
) -> None:
    if name == "disable":
        on(world)
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, name, "deploy/llama"], env={**os.environ},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert "waiting for the operator" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == f"trail {name}: interrupted; the annotation {left}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    screen = Terminal()
    lines = Lines(screen)
    lines.show("deployment/llama: annotated", 1.0)
    lines.show("short", 2.0)
    lines.clear()
    shown = screen.getvalue()
    assert "\n" not in shown
    assert shown.split("\r\x1b[K") == ["", "[1 s] deployment/ll", "[2 s] short", ""]


def test_on_a_pipe_each_change_has_its_line() -> None:
    pipe = io.StringIO()
    lines = Lines(pipe)
    for text in ("a", "a", "b", "a"):
        lines.show(text, 1.0)
    lines.clear()
    assert pipe.getvalue() == "a\nb\na\n"


def test_a_selector_is_written_as_a_query() -> None:
    expressions = [
        {"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "old", "operator": "NotIn", "values": ["yes"]},
        {"key": "app", "operator": "Exists"},
        {"key": "test", "operator": "DoesNotExist"},
    ]
    spec = {"selector": {"matchLabels": {"z": "1", "a": "2"}, "matchExpressions": expressions}}
    assert selector({"spec": spec}) == "a=2,z=1,tier in (a,b),old notin (yes),app,!test"
    assert selector({}) == ""
