"""Every example runs as its README says: on real vLLM, in the simulator, or through the operator's code."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from chart_kit import CHARTS, check, one, render, validate
from operator_kit import Object, admit, crd_version, make_view

from trail.demo import demo_model_dir
from trail_operator.admission.inject import read_status
from trail_operator.settings import InjectionSettings

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("01-demo", "02-your-model", "03-simulate-your-trace", "04-kubernetes", "05-shadow-first")
SMALL = ("--max-num-seqs", "4", "--block-size", "32")
on_vllm = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (demo_model_dir() / "config.json").is_file(), reason="the demo model is not here"),
]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Runs an example's script in a directory of its own and returns what it prints."""
    (tmp_path / "bin").mkdir()
    trail = tmp_path / "bin" / "trail"
    trail.write_text(f'#!/bin/sh\nexec {sys.executable} -m trail "$@"\n')
    trail.chmod(0o755)

    def started(name: str, *arguments: str, **variables: str) -> str:
        env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **variables}
        done = subprocess.run([EXAMPLES / name / "run.sh", *arguments], env=env, cwd=tmp_path, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    return started


def documents(name: str) -> dict[str, Object]:
    """The objects of an example's YAML files, by kind."""
    files = [file for file in (EXAMPLES / name).glob("*.yaml") if file.name != "values.yaml"]
    return {obj["kind"]: obj for file in files for obj in yaml.safe_load_all(file.read_text())}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_a_readme_and_a_few_lines(name: str) -> None:
    assert (EXAMPLES / name / "README.md").is_file()
    lines = [file.read_text().splitlines() for file in (EXAMPLES / name).glob("*.sh")]
    assert all(len(script) <= 12 for script in lines)
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == set(NAMES)


class TestOnVllm:
    pytestmark = on_vllm

    def test_the_demo_answers_and_its_sidecar_is_seen(self, run: Any, tmp_path: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        said = run("01-demo", *SMALL, "--max-model-len", "256", PORT=port, TRAIL_METRICS_PORT="-1")
        (answer,) = [json.loads(line[line.index("{") : line.rindex("}") + 1]) for line in said.splitlines()
                     if '"text_completion"' in line]  # fmt: skip
        assert answer["choices"][0]["text"]
        assert "trail-c0.2" in said[said.index('"text_completion"') :]

    def test_a_predictor_comes_of_a_model_and_its_prompts(self, run: Any, tmp_path: Path) -> None:
        small = ("--limit", "60", "--samples", "2", "--layers", "3", "--every", "4", "--max-tokens", "200")
        said = run("02-your-model", *small, *SMALL, OUT="made")
        assert (tmp_path / "made/predictor/trail.json").is_file()
        assert "next: trail serve demo --predictor made/predictor" in said


def test_the_trace_is_simulated(run: Any, tmp_path: Path) -> None:
    run("03-simulate-your-trace", "--seeds", "1", "--jobs", "1", OUT="found")
    found = json.loads((tmp_path / "found/results.json").read_text())
    assert set(found["arms"]) == {"fcfs", "trail-c0.2", "adaptive"}


def test_the_log_says_what_its_readme_says(run: Any, tmp_path: Path) -> None:
    run("05-shadow-first", OUT="found")
    found = json.loads((tmp_path / "found/shadow.json").read_text())
    gain = found["gains"]["trail-c0.2"]
    assert (
        f"says {gain['mean_latency_s']:.2f} times lower"
        in (EXAMPLES / "05-shadow-first/README.md").read_text()
    )
    assert gain["p99_latency_s"] == pytest.approx(1 / 2, rel=0.05)


def test_the_chart_takes_the_values() -> None:
    values = yaml.safe_load((EXAMPLES / "04-kubernetes/values.yaml").read_text())
    check(values)
    (container, *_) = one(render(values), "Deployment", "operator")["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example/team/trail-operator:")
    assert (CHARTS / "trail-crds/Chart.yaml").is_file()


@pytest.mark.parametrize("name", ["04-kubernetes", "05-shadow-first"])
def test_the_policy_is_one(name: str) -> None:
    policy = documents(name)["TrailPolicy"]
    jsonschema.validate(policy, crd_version()["schema"]["openAPIV3Schema"])
    assert policy["metadata"] == {"name": "default", "namespace": "llm"}


@pytest.mark.parametrize(
    ("name", "order"), [("04-kubernetes", "adaptive"), ("05-shadow-first", "trail-c0.8-shadow")]
)
def test_the_deployments_pods_are_injected(name: str, order: str) -> None:
    deployment, policy = documents("04-kubernetes")["Deployment"], documents(name)["TrailPolicy"]
    for version in ("1.25", "1.37"):
        validate(deployment, version)
    template = deployment["spec"]["template"]
    asks = {"name": "demo-0", "namespace": "llm", "annotations": {"trail.dev/inject": "enabled"}}
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], **asks}}
    images = yaml.safe_load((EXAMPLES / "04-kubernetes/values.yaml").read_text())["images"]
    settings = InjectionSettings(images["sidecar"]["repository"], images["engine"]["repository"])
    after = admit(pod, make_view([policy], settings=settings))
    status = read_status(after)
    assert status is not None
    assert status["injected"] is True
    validate(after, "1.37")
    (sidecar,) = [c for c in after["spec"]["initContainers"] if c["name"] == "trail-sidecar"]
    assert sidecar["image"] == "registry.example/team/trail-sidecar"
    assert {"name": "TRAIL_POLICY", "value": order} in sidecar["env"]
