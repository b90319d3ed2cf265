"""A run of `trail bench` served again by the simulator: the same requests, lengths and predictions."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trail.bench.config import STOCK
from trail.bench.predictions import REQUEST_ID, read_sidecar_stats
from trail.policy.spec import parse_policy
from trail.serving.setup import option_value
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.predictors import Predictions
from trail.simulation.engine.steptime import StepModel
from trail.simulation.engine.workload import Workload
from trail.simulation.run import Served, simulate

Records = Mapping[int, Mapping[str, Any]]
"""What the sidecar recorded of a run's requests, by their place in the benchmark."""


class ReplayError(ValueError):
    """A benchmark that cannot be served again; the message says which run, and what is missing."""


@dataclass(frozen=True)
class Recorded:
    """What the sidecars of one benchmark left: requests by run, and steps from an export to the board."""

    runs: Mapping[str, Records]
    lag_steps: int


def read_recorded(results: Mapping[str, Any], directory: Path) -> Recorded:
    """The statistics of the benchmark in `directory`. Raises ReplayError where a sidecar left none."""
    runs: dict[str, dict[int, Mapping[str, Any]]] = {}
    lags: list[float] = []
    for server in results["servers"]:
        if server["stock"]:
            continue
        path = directory / "logs" / f"{server['name']}-sidecar.json"
        stats = read_sidecar_stats(path)
        if stats is None:
            raise ReplayError(f"{path} is missing: without the sidecar's statistics nothing can be replayed")
        if "p50" in stats["delay_steps"]:
            lags.append(stats["delay_steps"]["p50"])
        for request in stats["requests"]:
            match = REQUEST_ID.match(str(request["request_id"]))
            if match:
                runs.setdefault(match["run"], {})[int(match["index"])] = request
    return Recorded(runs, round(float(np.median(lags))) if lags else 0)


def engine_config(vllm_args: Sequence[str], block_tokens: int = 16) -> EngineConfig:
    """The engine's limits as vLLM's arguments state them; without a number of blocks memory never runs out.

    Raises ReplayError where they do not state slots and token budget.
    """
    limits: dict[str, int | None] = {}
    for field, option in (
        ("slots", "--max-num-seqs"),
        ("token_budget", "--max-num-batched-tokens"),
        ("kv_blocks", "--num-gpu-blocks-override"),
        ("block_tokens", "--block-size"),
    ):
        value = option_value(vllm_args, option)
        limits[field] = int(value) if value is not None else None
    if limits["slots"] is None or limits["token_budget"] is None:
        raise ReplayError(
            "the benchmark's vLLM arguments state no --max-num-seqs or --max-num-batched-tokens"
        )
    return EngineConfig(
        slots=limits["slots"],
        token_budget=limits["token_budget"],
        kv_blocks=limits["kv_blocks"],
        block_tokens=limits["block_tokens"] or block_tokens,
        prefix_cache="--no-enable-prefix-caching" not in vllm_args,
        async_scheduling="--async-scheduling" in vllm_args,
    )


def workload(run: Mapping[str, Any]) -> tuple[Workload, NDArray[np.int64]]:
    """Requests of a run that completed, in order of arrival, and their places in the benchmark `[n]`.

    Raises ReplayError where one did not: it had its share of the engine all the same.
    """
    columns = run["requests"]
    if set(columns["outcome"]) != {"completed"}:
        raise ReplayError(f"repeat {run['repeat']} of {run['arm']}: not every request completed")
    arrival = np.asarray(columns["arrival_s"], np.float64)
    order = np.argsort(arrival, kind="stable")
    prompt, output = (np.asarray(columns[k], np.int64)[order] for k in ("prompt_tokens", "output_tokens"))
    return Workload(arrival[order], prompt, output), order


def predictions_of(work: Workload, places: NDArray[np.int64], records: Records, what: str) -> Predictions:
    """What the board showed of every request at every age: the newest prediction, counted down since.

    Raises ReplayError naming a request (of run `what`) that the sidecar did not see.
    """
    missing = [int(place) for place in places if int(place) not in records]
    if missing:
        raise ReplayError(f"{what}: the sidecar recorded nothing of request {missing[0]}")
    known = [records[int(place)] for place in places]
    made = [r["initial"] for r in known if r["initial"] is not None]
    mean = float(np.mean(made)) if made else float(work.output_tokens.mean())
    # Nothing was predicted of those that ended first: they rank by the mean.
    initial = np.array([mean if r["initial"] is None else r["initial"] for r in known], np.float64)
    counts = work.output_tokens
    first = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)[:-1]))
    refined = np.empty(int(counts.sum()), np.float32)
    for i, record in enumerate(known):
        ages, lengths = (np.asarray(column, np.float64) for column in record["predicted"])
        every = np.arange(counts[i])
        newest = np.searchsorted(np.maximum.accumulate(ages), every, side="right") - 1
        said = np.where(newest >= 0, lengths[np.maximum(newest, 0)], initial[i]) if len(ages) else initial[i]
        refined[first[i] : first[i] + counts[i]] = np.maximum(said - every, 0.0)
    nothing = np.full(len(work), np.nan)
    return Predictions(1, initial, first, refined, nothing, np.full(len(refined), np.nan, np.float32))


def replay(
    run: Mapping[str, Any], config: EngineConfig, model: StepModel, recorded: Recorded
) -> tuple[Served, Workload]:
    """Serve a run's requests again. Raises ReplayError."""
    work, places = workload(run)
    if run["arm"] == STOCK:
        return simulate(config, model, work, parse_policy(STOCK)), work
    name = f"r{run['repeat']}-{run['arm']}"
    predictions = predictions_of(work, places, recorded.runs.get(name, {}), name)
    late = dataclasses.replace(config, prediction_lag=recorded.lag_steps, initial_lag=recorded.lag_steps)
    return simulate(late, model, work, parse_policy(run["arm"]), predictions), work
