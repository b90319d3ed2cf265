"""vLLM's entry point (`vllm.general_plugins`): switches TRAIL on where `TRAIL_ENABLED=1` asks for it.

vLLM runs `register` unguarded in each of its processes; the one that builds the engine's configuration is
where the worker and the scheduler are chosen.
"""

import functools
import importlib
import os
from typing import Any

from trail.engine.log import logger
from trail.engine.start import features, selfcheck
from trail.engine.start.config import EngineConfig

WORKER = "trail.engine.export.worker.TrailWorker"
SCHEDULER = "trail.engine.order.scheduler.TrailScheduler"


def register() -> None:
    """Have vLLM's engine configuration name TRAIL's worker and scheduler. Never raises."""
    try:
        config = EngineConfig.from_environ(os.environ)
        if config.enabled or config.problem:
            _wrap(config)
    except Exception as error:  # noqa: BLE001 - vLLM must start whatever happens here
        logger.warning("TRAIL is off: %s: %s", type(error).__name__, error)


def _wrap(config: EngineConfig) -> None:
    from vllm.engine.arg_utils import EngineArgs

    original = EngineArgs.create_engine_config
    if getattr(original, "trail", False):
        return

    @functools.wraps(original)
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        vllm_config = original(self, *args, **kwargs)
        try:
            reason = switch_on(config, self, vllm_config)
        except Exception as error:  # noqa: BLE001 - vLLM must start whatever happens here
            reason = f"{type(error).__name__}: {error}"
        if reason:
            logger.warning("TRAIL is off, vLLM runs as it would without it: %s", reason)
        return vllm_config

    create_engine_config.trail = True  # type: ignore[attr-defined]  # marks the wrapper, so that it wraps once
    EngineArgs.create_engine_config = create_engine_config


def switch_on(config: EngineConfig, engine_args: Any, vllm_config: Any) -> str:
    """Name TRAIL's worker and scheduler in `vllm_config`; returns why not, with nothing changed, or ''."""
    reason = (
        config.problem or _taken(engine_args) or "; ".join(features.unsupported(vllm_config, config.layers))
    )
    if not reason:
        missing = selfcheck.installed_missing()
        reason = "; ".join(map(str, missing))
    if reason:
        return reason
    importlib.import_module("trail.engine.order.scheduler")  # raises here rather than in the engine core
    vllm_config.scheduler_config.scheduler_cls = SCHEDULER
    if config.layers:
        vllm_config.parallel_config.worker_cls = WORKER
        # Part of the compile cache's hash: a graph compiled without the layers' outputs is not taken for one
        # with them.
        additional = dict(vllm_config.additional_config)
        additional["trail"] = {**additional.get("trail", {}), "layers": list(config.layers)}
        vllm_config.additional_config = additional
        logger.info("TRAIL is on: exporting layers %s to %s", list(config.layers), config.directory)
    else:
        logger.info("TRAIL is on without export: no layers are named, ranks come from prompts alone")
    if config.otlp_endpoint:
        trace(config.otlp_endpoint, config.trace_ratio, vllm_config)
    return ""


def trace(endpoint: str, ratio: str, vllm_config: Any) -> None:
    """Have vLLM trace to `endpoint`, unless its user has set another: only then it passes trace headers on to
    its scheduler, and from there to the sidecar.

    It traces `ratio` of the requests whose client says nothing, where its user has chosen no sampler.
    """
    try:
        observability = vllm_config.observability_config
        if observability.otlp_traces_endpoint is not None:
            return
        if not importlib.import_module("vllm.tracing").is_otel_available():
            logger.warning("TRAIL: no traces: vLLM's environment lacks OpenTelemetry's SDK or OTLP exporter")
            return
        observability.otlp_traces_endpoint = endpoint
        if ratio and "OTEL_TRACES_SAMPLER" not in os.environ:
            os.environ["OTEL_TRACES_SAMPLER"] = "parentbased_traceidratio"
            os.environ["OTEL_TRACES_SAMPLER_ARG"] = ratio
        logger.info("TRAIL: vLLM's spans go to %s", endpoint)
    except Exception as error:  # noqa: BLE001 - requests are served without traces as well
        logger.warning("TRAIL: no traces: %s: %s", type(error).__name__, error)


def _taken(engine_args: Any) -> str:
    """Why the user's own choice of worker or scheduler keeps TRAIL off, or ''."""
    if engine_args.worker_cls not in ("auto", WORKER):
        return f"--worker-cls {engine_args.worker_cls} is set; TRAIL does not replace it"
    if engine_args.scheduler_cls not in (None, SCHEDULER):
        return f"--scheduler-cls {engine_args.scheduler_cls} is set; TRAIL does not replace it"
    return ""
