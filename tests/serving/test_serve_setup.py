"""What cannot be served is refused in one line before anything starts; what is vLLM's passes through."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trail.serving.launch import TrailSetup, sidecar_command, vllm_command, with_trail
from trail.serving.setup import (
    ModelSource,
    SetupError,
    merge_args,
    option_value,
    resolve_model,
    resolve_predictor,
    serving_environment,
)

SETUP = TrailSetup(Path("/p"), 3, "trail-c0.2")


def trail(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trail", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 100,
    }
    (model / "config.json").write_text(json.dumps(config))
    return model


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve", "/no/such/model"], "no model at '/no/such/model'"),
        (["serve", "--port", "8000"], "no model at '8000'"),
        (["serve", "demo", "--policy", "shortest"], "unknown policy 'shortest'"),
        (["serve", "demo", "--policy", "trail-c7"], "must lie in [0, 1]"),
        (["serve", "demo", "--predictor", "/no/such/predictor"], "no predictor at /no/such/predictor"),
        (["bench"], "name a MODEL first"),
        (["bench", "demo", "--arms", "fcfs,fcfs"], "twice"),
        (["bench", "demo", "--load", "much"], "--load 'much'"),
        (["bench", "demo", "--prompts", "/no/such/prompts"], "/no/such/prompts"),
        (["bench", "--report-only", "/no/such/results.json"], "/no/such/results.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: list[str], message: str) -> None:
    done = trail(*words)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_model_without_a_predictor_says_what_to_do(model_dir: Path) -> None:
    done = trail("serve", str(model_dir))
    assert done.returncode == 2
    assert "--predictor" in done.stderr
    assert "--no-trail" in done.stderr


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"holds no config\.json"):
        resolve_model(str(tmp_path))


def test_the_demo_predictor_is_refused_for_another_model(model_dir: Path) -> None:
    demo = resolve_predictor(None, resolve_model("demo"))
    other = ModelSource("other", str(model_dir), model_dir, local=True)
    with pytest.raises(SetupError, match="is another model"):
        resolve_predictor(demo.path, other)


def test_a_model_that_is_not_downloaded_cannot_be_checked_and_says_so() -> None:
    demo = resolve_predictor(None, resolve_model("demo"))
    assert demo.checked_against_model
    absent = ModelSource("owner/absent", "owner/absent", None, local=False)
    assert not resolve_predictor(demo.path, absent).checked_against_model


def test_a_hub_id_is_taken_as_one_without_asking_the_network() -> None:
    source = resolve_model("owner/never-downloaded")
    assert (source.vllm_model, source.directory, source.local) == ("owner/never-downloaded", None, False)


def test_what_the_user_says_to_vllm_wins_and_keeps_its_order() -> None:
    defaults = ("--dtype", "float32", "--max-num-seqs", "16", "--seed", "0")
    given = ["--port", "80", "--max_num_seqs=4", "--dtype", "bfloat16", "--port", "81"]
    assert merge_args(defaults, given) == ["--seed", "0", *given]


@pytest.mark.parametrize(
    ("args", "want"),
    [
        (["--a-b", "1"], "1"),
        (["--a_b=2"], "2"),
        (["--a-b", "1", "--a-b=3"], "3"),
        (["--a-b"], None),
        ([], None),
    ],
)
def test_the_last_value_of_an_option_counts(args: list[str], want: str | None) -> None:
    assert option_value(args, "--a-b") == want


def test_the_environment_fills_gaps_and_leaves_what_the_user_set() -> None:
    env = serving_environment({"OMP_NUM_THREADS": "3", "TRAIL_HEARTBEAT_MS": "50"}, local_model=True, cpus=2)
    assert env == {
        "OMP_NUM_THREADS": "3",
        "TRAIL_HEARTBEAT_MS": "50",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    assert "HF_HUB_OFFLINE" not in serving_environment({}, local_model=False, cpus=2)
    assert "OMP_NUM_THREADS" not in serving_environment({}, local_model=True, cpus=64)


def test_stock_vllm_never_inherits_a_trail_that_is_switched_on() -> None:
    env = serving_environment(
        {"TRAIL_ENABLED": "1", "TRAIL_DIR": "/x", "TRAIL_LAYERS": "2"}, local_model=False, cpus=8
    )
    assert not {"TRAIL_ENABLED", "TRAIL_DIR", "TRAIL_LAYERS"} & set(env)


def test_trail_is_switched_on_by_environment_alone() -> None:
    env = with_trail({"A": "b"}, Path("/d"), (3, 4))
    assert env == {"A": "b", "TRAIL_ENABLED": "1", "TRAIL_DIR": "/d", "TRAIL_LAYERS": "3,4"}
    blind = with_trail({"TRAIL_LAYERS": "3"}, Path("/d"), ())
    assert blind == {"TRAIL_ENABLED": "1", "TRAIL_DIR": "/d"}


@pytest.mark.parametrize(("given", "want"), [("a,b", "a,b,trail"), ("trail,a", "trail,a"), ("", "trail")])
def test_a_list_of_plugins_is_extended_and_not_replaced(given: str, want: str) -> None:
    assert with_trail({"VLLM_PLUGINS": given}, Path("/d"), (3,))["VLLM_PLUGINS"] == want


def test_command_lines_carry_everything() -> None:
    command = vllm_command("m", ["--port", "1"])
    assert command[1:] == ["-m", "vllm.entrypoints.openai.api_server", "--model", "m", "--port", "1"]
    sidecar = sidecar_command(SETUP, Path("/d"))
    assert sidecar[1:4] == ["-m", "trail", "sidecar"]
    assert option_value(sidecar, "--policy") == "trail-c0.2"
    assert option_value(sidecar, "--dir") == "/d"
