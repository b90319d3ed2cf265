"""Puts a worker's export together: which ranks export, from which interface, onto which transfer."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from trail.engine.export import fallback_hook
from trail.engine.export.hook import Exporter, ExportError, HiddenStates
from trail.engine.export.sink import Sink
from trail.engine.export.tracker import Tracker
from trail.engine.export.transfer import CudaCopier, DirectTransfer, StreamTransfer, Transfer, dtype_name
from trail.engine.log import logger
from trail.engine.report.stats import StatsFile, Timing, export_stats_path
from trail.engine.start.config import EngineConfig, engine_index
from trail.wire.names import ring_path


def start_export(worker: Any) -> Exporter | None:
    """Switch the export on for a worker whose model is loaded; None on ranks that do not export.

    Every tensor-parallel rank returns the layers, because all of them run the same graph; rank 0 exports, the
    others hold the same values. Raises on a layer that the model cannot give.
    """
    config = EngineConfig.from_environ(os.environ)
    vllm_config = worker.vllm_config
    layers: tuple[int, ...] = tuple((vllm_config.additional_config.get("trail") or {}).get("layers", ()))
    if not config.enabled or not layers:
        return None
    from vllm.distributed import get_tp_group

    model_config = vllm_config.model_config
    dtype = dtype_name(model_config.dtype)
    hidden_states, interface = request_layers(worker, layers)
    if get_tp_group().rank_in_group != 0:
        return None

    engine = engine_index(vllm_config.parallel_config)
    hidden_size = model_config.get_hidden_size()
    sink = Sink(
        ring_path(config.directory, engine),
        hidden_size=hidden_size,
        dtype=dtype,
        layers=layers,
        heartbeat_ns=config.heartbeat_ns,
    )
    rows = vllm_config.scheduler_config.max_num_seqs * len(layers)
    transfer = _transfer(sink, worker.device, rows, hidden_size, model_config.dtype)
    timing, counters = Timing(), dict[str, int]()
    stats = None
    if config.stats:
        stats = StatsFile(export_stats_path(config.directory, engine), {"export_us": timing}, counters)
    logger.info("TRAIL: layers %s through the %s", list(layers), interface)
    return Exporter(
        layers=layers,
        tracker=Tracker(config.export_every),
        transfer=transfer,
        hidden_states=hidden_states,
        timing=timing,
        counters=counters,
        stats=stats,
    )


def request_layers(worker: Any, layers: Sequence[int]) -> tuple[HiddenStates, str]:
    """Have the model hand out `layers` of its hidden states; returns where to read them and through what.

    The auxiliary-hidden-state interface (`SupportsEagle3` in vllm/model_executor/models/interfaces.py) where
    the model has it, a forward hook otherwise.
    """
    from vllm.model_executor.models.interfaces import supports_eagle3

    model, runner = worker.get_model(), worker.model_runner
    total = worker.vllm_config.model_config.get_total_num_hidden_layers()
    outside = [k for k in layers if not 0 <= k < total]
    if outside:
        raise ExportError(f"layers {outside} do not exist; this model has hidden_states[0] to [{total - 1}]")
    if supports_eagle3(model):
        model.set_aux_hidden_state_layers(tuple(layers))
        runner.use_aux_hidden_state_outputs = True
        return partial(_auxiliary, runner), "auxiliary-hidden-state interface"
    model_config = worker.vllm_config.model_config
    buffers = fallback_hook.install(
        model,
        layers,
        max_tokens=worker.vllm_config.scheduler_config.max_num_batched_tokens,
        hidden_size=model_config.get_hidden_size(),
        dtype=model_config.dtype,
        device=worker.device,
    )
    return lambda: buffers, "forward hook"


def _auxiliary(runner: Any) -> Sequence[torch.Tensor]:
    auxiliary: Sequence[torch.Tensor] | None = runner.execute_model_state.aux_hidden_states
    if auxiliary is None:
        raise ExportError("the model returned no auxiliary hidden states")
    return auxiliary


def _transfer(sink: Sink, device: torch.device, rows: int, hidden_size: int, dtype: torch.dtype) -> Transfer:
    if device.type == "cpu":
        return DirectTransfer(sink, rows, hidden_size, dtype)
    return StreamTransfer(sink, CudaCopier(device), rows, hidden_size, dtype)
