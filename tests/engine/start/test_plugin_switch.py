"""What the plugin does to vLLM's configuration, and what keeps it off: each reason has a name."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.engine.arg_utils import EngineArgs

from trail.engine.start import plugin, selfcheck
from trail.engine.start.config import EngineConfig
from trail.engine.start.needs import Need

CONFIG = EngineConfig(enabled=True, layers=(2,))
ENVIRON = {"TRAIL_ENABLED": "1", "TRAIL_LAYERS": "2", "TRAIL_DIR": "/trail"}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """EngineArgs as vLLM ships it, restored afterwards."""
    original = EngineArgs.create_engine_config
    while hasattr(original, "__wrapped__") and getattr(original, "trail", False):
        original = original.__wrapped__
    monkeypatch.setattr(EngineArgs, "create_engine_config", original)


def engine_args(**changes: Any) -> Any:
    return SimpleNamespace(**{"worker_cls": "auto", "scheduler_cls": None, **changes})


def vllm_config(**changes: Any) -> Any:
    """A configuration TRAIL works with, with `changes` by dotted name written with two underscores."""
    config = SimpleNamespace(
        model_config=SimpleNamespace(
            is_encoder_decoder=False, runner_type="generate", get_total_num_hidden_layers=lambda: 4
        ),
        parallel_config=SimpleNamespace(
            worker_cls="vllm.v1.worker.cpu_worker.CPUWorker",
            use_ubatching=False,
            prefill_context_parallel_size=1,
            decode_context_parallel_size=1,
            pipeline_parallel_size=1,
            nnodes=1,
            distributed_executor_backend="mp",
        ),
        scheduler_config=SimpleNamespace(scheduler_cls=None),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=False),
        observability_config=SimpleNamespace(otlp_traces_endpoint=None),
        speculative_config=None,
        diffusion_config=None,
        kv_transfer_config=None,
        ec_transfer_config=None,
        additional_config={"mine": 1},
    )
    for name, value in changes.items():
        *owners, last = name.split("__")
        owner = config
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, last, value)
    return config


def test_names_worker_scheduler_and_layers() -> None:
    config = vllm_config()
    assert plugin.switch_on(CONFIG, engine_args(), config) == ""
    assert config.parallel_config.worker_cls == "trail.engine.export.worker.TrailWorker"
    assert config.scheduler_config.scheduler_cls == "trail.engine.order.scheduler.TrailScheduler"
    assert config.additional_config == {"mine": 1, "trail": {"layers": [2]}}


def test_without_layers_the_worker_is_left_alone() -> None:
    config = vllm_config()
    assert plugin.switch_on(EngineConfig(enabled=True), engine_args(), config) == ""
    assert config.parallel_config.worker_cls == "vllm.v1.worker.cpu_worker.CPUWorker"
    assert config.scheduler_config.scheduler_cls == "trail.engine.order.scheduler.TrailScheduler"
    assert config.additional_config == {"mine": 1}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_config__is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_config__runner_type": "pooling"}, "pooling"),
        ({"speculative_config": object()}, "speculative decoding"),
        ({"diffusion_config": object()}, "diffusion"),
        ({"kv_transfer_config": object()}, "KV connectors"),
        ({"ec_transfer_config": object()}, "encoder-cache connectors"),
        ({"cache_config__kv_sharing_fast_prefill": True}, "--kv-sharing-fast-prefill"),
        ({"parallel_config__use_ubatching": True}, "dual batch overlap"),
        ({"parallel_config__prefill_context_parallel_size": 2}, "context parallelism"),
        ({"parallel_config__decode_context_parallel_size": 2}, "context parallelism"),
        ({"parallel_config__nnodes": 2}, "several nodes"),
        ({"parallel_config__distributed_executor_backend": "ray"}, "several nodes"),
        ({"parallel_config__distributed_executor_backend": "external_launcher"}, "external launcher"),
        ({"parallel_config__worker_cls": "vllm.v1.worker.xpu_worker.XPUWorker"}, "XPUWorker"),
        ({"parallel_config__pipeline_parallel_size": 2}, "pipeline parallelism"),
        ({"additional_config": object()}, "additional_config"),
    ],
)
def test_an_unsupported_feature_is_named(change: dict[str, Any], named: str) -> None:
    config = vllm_config(**change)
    before = copy.deepcopy(vars(config.scheduler_config)), copy.deepcopy(vars(config.parallel_config))
    assert named in plugin.switch_on(CONFIG, engine_args(), config)
    assert (vars(config.scheduler_config), vars(config.parallel_config)) == before


def test_a_layer_that_the_model_does_not_have_is_named() -> None:
    reason = plugin.switch_on(EngineConfig(enabled=True, layers=(2, 4)), engine_args(), vllm_config())
    assert "layers [4]" in reason
    assert "hidden_states[3]" in reason


@pytest.mark.parametrize("change", [{"worker_cls": "my.Worker"}, {"scheduler_cls": "my.Scheduler"}])
def test_a_users_own_class_is_left_alone(change: dict[str, str]) -> None:
    config = vllm_config()
    assert "my." in plugin.switch_on(CONFIG, engine_args(**change), config)
    assert config.scheduler_config.scheduler_cls is None


def test_a_missing_attribute_of_vllm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = selfcheck.Missing(Need("vllm.somewhere", "Thing.part", "a purpose"), "is missing")
    monkeypatch.setattr(selfcheck, "installed_missing", lambda: (missing,))
    config = vllm_config()
    assert (
        plugin.switch_on(CONFIG, engine_args(), config)
        == "vllm.somewhere:Thing.part is missing (used for a purpose)"
    )
    assert config.scheduler_config.scheduler_cls is None


@pytest.mark.usefixtures("plain")
def test_registering_does_nothing_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAIL_ENABLED", raising=False)
    before = EngineArgs.create_engine_config
    plugin.register()
    assert EngineArgs.create_engine_config is before


@pytest.mark.usefixtures("plain")
def test_registering_twice_wraps_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    plugin.register()
    once = EngineArgs.create_engine_config
    plugin.register()
    assert EngineArgs.create_engine_config is once


@pytest.mark.usefixtures("plain")
def test_real_engine_arguments_and_the_compile_caches_hash(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = EngineArgs(model=str(tiny_model("llama")), skip_tokenizer_init=True, block_size=32)
    stock = args.create_engine_config()
    hashes = {stock.compute_hash()}
    for layer in (1, 2):
        monkeypatch.setattr(EngineArgs, "create_engine_config", vars(EngineArgs)["create_engine_config"])
        for name, value in {**ENVIRON, "TRAIL_LAYERS": str(layer)}.items():
            monkeypatch.setenv(name, value)
        original = EngineArgs.create_engine_config
        plugin.register()
        config = args.create_engine_config()
        EngineArgs.create_engine_config = original
        assert config.parallel_config.worker_cls == plugin.WORKER
        assert config.scheduler_config.scheduler_cls == plugin.SCHEDULER
        hashes.add(config.compute_hash())
    assert len(hashes) == 3


@pytest.mark.usefixtures("plain")
def test_an_unusable_variable_leaves_vllm_as_it_is_with_one_line(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, trail_log: list[str]
) -> None:
    for name, value in {**ENVIRON, "TRAIL_LAYERS": "eleven"}.items():
        monkeypatch.setenv(name, value)
    plugin.register()
    config = EngineArgs(model=str(tiny_model("llama")), skip_tokenizer_init=True).create_engine_config()
    assert config.scheduler_config.scheduler_cls is None
    assert "trail" not in config.additional_config
    assert len(trail_log) == 1
    assert "TRAIL_LAYERS='eleven'" in trail_log[0]


def test_tracing_is_switched_on_where_trail_traces_and_the_user_does_not() -> None:
    tracing = replace(CONFIG, otlp_endpoint="http://collector:4317")
    config = vllm_config()
    assert plugin.switch_on(tracing, engine_args(), config) == ""
    assert config.observability_config.otlp_traces_endpoint == "http://collector:4317"
    config = vllm_config(observability_config__otlp_traces_endpoint="http://mine:4317")
    assert plugin.switch_on(tracing, engine_args(), config) == ""
    assert config.observability_config.otlp_traces_endpoint == "http://mine:4317"
    config = vllm_config()
    assert plugin.switch_on(CONFIG, engine_args(), config) == ""
    assert config.observability_config.otlp_traces_endpoint is None


def test_without_opentelemetry_or_with_another_vllm_there_are_no_traces_and_trail_is_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracing = replace(CONFIG, otlp_endpoint="http://collector:4317")
    config = vllm_config(observability_config=SimpleNamespace())
    assert plugin.switch_on(tracing, engine_args(), config) == ""
    monkeypatch.setattr("vllm.tracing.is_otel_available", lambda: False)
    config = vllm_config()
    assert plugin.switch_on(tracing, engine_args(), config) == ""
    assert config.observability_config.otlp_traces_endpoint is None
    assert config.scheduler_config.scheduler_cls == plugin.SCHEDULER


@pytest.mark.parametrize(
    ("ratio", "theirs", "endpoint", "sampler"),
    [
        ("0.1", {}, None, ("parentbased_traceidratio", "0.1")),
        ("", {}, None, (None, None)),
        ("0.1", {"OTEL_TRACES_SAMPLER": "always_off"}, None, ("always_off", None)),
        ("0.1", {}, "http://mine:4317", (None, None)),
    ],
)
def test_vllms_own_spans_are_sampled_as_the_sidecars_are(
    ratio: str, theirs: dict[str, str], endpoint: str | None, sampler: tuple[str | None, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Where TRAIL switched vLLM's tracing on: a user's own tracing and sampler stay as they are."""
    environment = dict(theirs)
    monkeypatch.setattr(plugin.os, "environ", environment)
    tracing = replace(CONFIG, otlp_endpoint="http://collector:4317", trace_ratio=ratio)
    config = vllm_config(observability_config__otlp_traces_endpoint=endpoint)
    assert plugin.switch_on(tracing, engine_args(), config) == ""
    assert (environment.get("OTEL_TRACES_SAMPLER"), environment.get("OTEL_TRACES_SAMPLER_ARG")) == sampler
