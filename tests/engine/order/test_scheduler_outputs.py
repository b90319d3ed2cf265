"""The order of requests changes, their text never does: greedy outputs with and without TRAIL."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from oracle_sidecar import OracleSidecar
from scheduler_process import EngineProcess, requests, wait_until

from trail.policy.spec import PolicySpec, parse_policy

pytestmark = pytest.mark.vllm

POLICIES = ("fcfs", "oracle-c0", "oracle-c0.8", "oracle-c1", "sjf")


@pytest.fixture(scope="module")
def model(tiny_model: Callable[[str], Path]) -> Path:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    # A short path: a unix socket's name has room for about a hundred bytes.
    directory = Path(tempfile.mkdtemp(prefix="trail-test-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def stock(model: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Stock vLLM's answers."""
    engine = EngineProcess(
        model,
        shared,
        tmp_path_factory.mktemp("stock"),
        trail=False,
        max_num_seqs=4,
        num_gpu_blocks_override=100,
    )
    try:
        return engine.serve(requests())
    finally:
        engine.close()


def runs(engine: EngineProcess, sidecar: OracleSidecar) -> dict[str, dict[str, Any]]:
    """The same round under every policy, switched on the board of the living engine."""
    results = {}
    for name in POLICIES:
        sidecar.set_policy(parse_policy(name))
        sidecar.finished.clear()
        result = engine.serve(requests())
        assert wait_until(lambda: len(sidecar.finished) == 64)
        result["finished"] = list(sidecar.finished)
        results[name] = result
    return results


@pytest.fixture(scope="module")
def ample(model: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Memory enough, four slots. No prefix cache, which would spare a preempted request its recomputation."""
    sidecar = OracleSidecar(shared, PolicySpec())
    engine = EngineProcess(
        model,
        shared,
        tmp_path_factory.mktemp("ample"),
        max_num_seqs=4,
        num_gpu_blocks_override=100,
        enable_prefix_caching=False,
    )
    try:
        yield {**runs(engine, sidecar), "load": sidecar.load, "hello": sidecar.hellos[-1]}
    finally:
        engine.close()
        sidecar.stop()


@pytest.fixture(scope="module")
def scarce(model: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Eight slots and memory for about three long requests; scheduling ahead, and a prefix cache."""
    sidecar = OracleSidecar(shared, PolicySpec())
    engine = EngineProcess(
        model,
        shared,
        tmp_path_factory.mktemp("scarce"),
        max_num_seqs=8,
        num_gpu_blocks_override=22,
        async_scheduling=True,
        enable_prefix_caching=True,
    )
    try:
        results = runs(engine, sidecar)
        sidecar.set_policy(PolicySpec("oracle", 0.8, kv_reserve_tokens=40.0))
        sidecar.finished.clear()
        results["reserve"] = engine.serve(requests())
        assert wait_until(lambda: len(sidecar.finished) == 64)
        results["reserve"]["finished"] = list(sidecar.finished)
        yield {**results, "hello": sidecar.hellos[-1]}
    finally:
        engine.close()
        sidecar.stop()


@pytest.mark.parametrize("policy", POLICIES)
def test_outputs_are_those_of_stock_vllm(policy: str, stock: dict[str, Any], ample: dict[str, Any]) -> None:
    assert ample[policy]["outputs"] == stock["outputs"]


@pytest.mark.parametrize("policy", [*POLICIES, "reserve"])
def test_outputs_are_those_of_stock_vllm_when_memory_is_short(
    policy: str, stock: dict[str, Any], scarce: dict[str, Any]
) -> None:
    assert scarce[policy]["outputs"] == stock["outputs"]
    assert sum(request.preemptions for request in scarce["fcfs"]["finished"]) > 0


def mean_place(result: dict[str, Any]) -> float:
    """Mean place of the shorter half of the requests in the order of their ends."""
    lengths = [len(output) for output in result["outputs"]]
    short = [number for number in range(len(lengths)) if lengths[number] <= 20]
    return sum(result["ended"].index(number) for number in short) / len(short)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "fcfs"])
def test_shorter_requests_end_earlier_than_first_come_first_served(
    policy: str, ample: dict[str, Any]
) -> None:
    assert mean_place(ample[policy]) < mean_place(ample["fcfs"])


def test_under_fcfs_requests_end_as_in_stock_vllm(stock: dict[str, Any], ample: dict[str, Any]) -> None:
    assert ample["fcfs"]["ended"] == stock["ended"]


def test_with_c_zero_and_memory_enough_nothing_is_preempted(ample: dict[str, Any]) -> None:
    for policy in ("fcfs", "sjf", "oracle-c0"):
        assert sum(request.preemptions for request in ample[policy]["finished"]) == 0
    assert sum(request.preemptions for request in ample["oracle-c0.8"]["finished"]) > 0


def test_the_sidecar_hears_of_every_request_and_its_end(ample: dict[str, Any]) -> None:
    expected = sorted(len(output) for output in ample["oracle-c0.8"]["outputs"])
    finished = ample["oracle-c0.8"]["finished"]
    assert sorted(request.output_tokens for request in finished) == expected
    assert {request.finish_reason for request in finished} == {"length"}


def test_preempted_tokens_are_counted_when_they_are_computed_again(ample: dict[str, Any]) -> None:
    for request in ample["oracle-c0.8"]["finished"]:
        assert (request.recomputed_tokens > 0) == (request.preemptions > 0)
    totals = ample["load"]
    assert totals.policy_preemptions_total == totals.preemptions_total > 0
    assert totals.recomputed_tokens_total == sum(
        request.recomputed_tokens for policy in POLICIES for request in ample[policy]["finished"]
    )


def test_the_engine_introduces_itself(ample: dict[str, Any]) -> None:
    hello = ample["hello"]
    assert (hello.hidden_size, hello.dtype, hello.max_running) == (64, "float32", 4)
    assert (hello.block_size_tokens, hello.kv_blocks, hello.max_model_len) == (32, 100, 512)


def test_the_engine_says_whether_it_caches_prefixes(ample: dict[str, Any], scarce: dict[str, Any]) -> None:
    assert [run["hello"].HasField("prefix_caching") for run in (ample, scarce)] == [True, True]
    assert [run["hello"].prefix_caching for run in (ample, scarce)] == [False, True]


def test_a_kv_reserve_lowers_memory_preemptions(scarce: dict[str, Any]) -> None:
    preemptions = {
        name: sum(r.preemptions for r in scarce[name]["finished"]) for name in ("oracle-c0.8", "reserve")
    }
    assert preemptions["reserve"] < preemptions["oracle-c0.8"]
