import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from trail.bench.config import Arrivals
from trail.simulation.engine.workload import RECORDED, Pool, Source, Workload, repeated, seeded
from trail.simulation.files import RUNAWAY_TOKENS, WorkloadError, read_source

AZURE = "arrival_s,input_tokens,output_tokens\n0.0,374,44\n4.3,396,109\n4.5,879,55\n"
MOONCAKE = "\n".join(
    json.dumps({"timestamp": t, "input_length": i, "output_length": o, "hash_ids": [1, 2]})
    for t, i, o in ((27482, 6955, 52), (30535, 6472, 26), (30535, 12, 1))
)
CASTILLO = (
    "dataset,split,model,prompt_id,input_tokens,o0,o1,o2,o3,o4,o5,o6,o7,o8,o9\n"
    f"A,test,m,p1,37,1,2,3,4,5,6,7,8,9,10\nA,test,m,p2,40,1,1,1,1,1,1,1,1,1,{RUNAWAY_TOKENS + 1}\n"
)
SSJF = "actual_output_tokens,pred_class3,pred_class5\n40,0,1\n72,0,1\n"


def file(tmp_path: Path, text: str, name: str = "work.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["work.csv", "work.csv.gz"])
def test_a_trace_as_azures(tmp_path: Path, name: str) -> None:
    work = read_source(file(tmp_path, AZURE, name)).recorded
    assert work is not None
    assert work.arrival_s.tolist() == [0.0, 4.3, 4.5]
    assert work.prompt_tokens.tolist() == [374, 396, 879]
    assert work.output_tokens.tolist() == [44, 109, 55]


def test_a_trace_as_mooncakes_counts_milliseconds(tmp_path: Path) -> None:
    work = read_source(file(tmp_path, MOONCAKE, "trace.jsonl")).recorded
    assert work is not None
    assert work.arrival_s.tolist() == pytest.approx([0.0, 3.053, 3.053])
    assert work.output_tokens.tolist() == [52, 26, 1]


def test_samples_of_lengths_as_castillos(tmp_path: Path) -> None:
    pool = read_source(file(tmp_path, CASTILLO)).pool
    assert pool is not None
    assert pool.output_tokens.tolist() == list(range(1, 11))
    assert set(pool.prompt_tokens.tolist()) == {37}


def test_a_column_of_lengths(tmp_path: Path) -> None:
    pool = read_source(file(tmp_path, SSJF), prompt_tokens=99).pool
    assert pool is not None
    assert pool.output_tokens.tolist() == [40, 72]
    assert pool.prompt_tokens.tolist() == [99, 99]
    other = read_source(file(tmp_path, "mine,x\n3,4\n"), lengths_column="x").pool
    assert other is not None
    assert other.output_tokens.tolist() == [4]


def test_requests_of_a_benchmark(tmp_path: Path) -> None:
    requests = {"arrival_s": [0.5, 0.1, 0.9], "prompt_tokens": [3, 4, None], "output_tokens": [5, 6, 0]}
    text = json.dumps({"format": 1, "arms": {"fcfs": {"runs": [{"requests": requests}]}}})
    work = read_source(file(tmp_path, text, "results.json")).recorded
    assert work is not None
    assert work.arrival_s.tolist() == [0.1, 0.5]
    assert work.prompt_tokens.tolist() == [4, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (AZURE + "4.0,1,1\n", "line 5: arrives at 4.0 s, before the line above"),
        (AZURE + "soon,1,1\n", "line 5: arrival_s is no number: 'soon'"),
        (AZURE + "9.0,0,1\n", "line 5: input_tokens must be a whole number of at least 1"),
        (AZURE + "9.0,1,1.5\n", "line 5: output_tokens must be a whole number"),
        (AZURE + "inf,1,1\n", "line 5: arrival_s is not finite"),
        (AZURE + "9.0,1\n", "line 5: output_tokens is no number: None"),
        (AZURE.splitlines()[0] + "\n", "no requests in it"),
        (MOONCAKE + "\n{oops", "line 4: no JSON"),
        (MOONCAKE + '\n{"timestamp": 1}', "line 4: expected an object with"),
        (
            MOONCAKE + '\n{"timestamp": 40000, "input_length": "x", "output_length": 1}',
            "line 4: input_length",
        ),
        (CASTILLO.splitlines()[0] + "\nA,t,m,p,1,1,2,3,4,5,6,7,8,9,x\n", "line 2: o9 is no number"),
        (CASTILLO.replace("37,1,2,3", "37,9999,2,3"), "no row whose longest answer"),
        ("a,b\n1,2\n", r"found \['a', 'b'\]. Say --lengths-column"),
        ("length\n", "no lines below the first"),
        ('{"arms": {}}', "not results of trail bench"),
        ("", "found"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(WorkloadError, match=message) as error:
        read_source(path)
    assert str(path) in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="cannot be read"):
        read_source(tmp_path / "nothing.csv")
    (tmp_path / "half.csv.gz").write_bytes(gzip.compress(AZURE.encode())[:20])
    with pytest.raises(WorkloadError, match="cannot be read"):
        read_source(tmp_path / "half.csv.gz")


def small() -> Workload:
    return Workload(np.array([0.0, 1.0, 4.0]), np.array([1, 2, 3]), np.array([4, 5, 6]))


def test_windows_go_round_and_rates_keep_the_pattern() -> None:
    work = small()
    window = work.window(2, 4)
    assert window.output_tokens.tolist() == [6, 4, 5, 6]
    # A mean gap of 2 between the end and the next round.
    assert window.arrival_s.tolist() == [0.0, 2.0, 3.0, 6.0]
    assert repeated(work, 7).arrival_s.tolist() == [0.0, 1.0, 4.0, 6.0, 7.0, 10.0, 12.0]
    faster = work.at_rate(2.0)
    assert faster.rate_per_s == pytest.approx(2.0)
    assert faster.arrival_s.tolist() == pytest.approx([0.0, 0.25, 1.0])
    assert work.at_once().rate_per_s is None
    with pytest.raises(ValueError, match="no window"):
        work.window(3, 1)


@pytest.mark.parametrize(
    ("arrival", "prompt", "output", "message"),
    [
        ([1.0, 0.0], [1, 1], [1, 1], "in order"),
        ([0.0], [1, 1], [1, 1], "1 arrivals with 2 prompts"),
        ([0.0], [0], [1], "at least one prompt token"),
        ([], [], [], "no request"),
    ],
)
def test_a_workload_that_makes_no_sense(
    arrival: list[float], prompt: list[int], output: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Workload(np.array(arrival), np.array(prompt), np.array(output))


def test_seeds_draw_lengths_and_arrivals() -> None:
    pool = Source("lengths", pool=Pool(np.array([1, 2, 3]), np.array([10, 20, 30])))
    first, again = (seeded(pool, 2000, Arrivals("poisson"), 3) for _ in range(2))
    other = seeded(pool, 2000, Arrivals("gamma", scv=8.0), 4)
    assert (first.arrival_s == again.arrival_s).all()
    assert (first.output_tokens == 10 * first.prompt_tokens).all()
    assert not (first.output_tokens == other.output_tokens).all()
    assert first.rate_per_s == pytest.approx(1.0, rel=0.1)
    gaps = np.diff(other.arrival_s)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(8.0, rel=0.35)
    assert not seeded(pool, 5, Arrivals("burst"), 0).arrival_s.any()
    with pytest.raises(ValueError, match="say how many"):
        seeded(pool, None, Arrivals("poisson"), 0)
    with pytest.raises(ValueError, match="holds no arrivals"):
        seeded(pool, 5, RECORDED, 0)


def test_seeds_begin_a_recording_at_different_places() -> None:
    n = 1000
    source = Source("trace", recorded=Workload(np.arange(n) * 1.0, np.arange(n) + 1, np.arange(n) + 1))
    whole = seeded(source, None, RECORDED, 0)
    assert (whole.prompt_tokens == np.arange(n) + 1).all()
    starts = {int(seeded(source, 10, RECORDED, seed).prompt_tokens[0]) for seed in range(1, 6)}
    assert len(starts) > 1
    timed = seeded(source, 3, RECORDED, 0, trace_s=np.array([0.0, 5.0, 5.0]))
    assert timed.arrival_s.tolist() == [0.0, 5.0, 5.0]
