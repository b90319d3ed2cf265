"""The check of what a bad collector costs, at the smallest size, and its table."""

import pytest

from benchmarks.observe.collectors import Outcome, measure, table
from benchmarks.observe.pretend import PretendLoad
from trail.demo import demo_predictor_dir


@pytest.mark.skipif(not (demo_predictor_dir() / "trail.json").is_file(), reason="the demo model is not here")
@pytest.mark.parametrize("state", ["off", "well", "away"])
def test_a_run_measures_delays_and_what_became_of_spans(state: str) -> None:
    outcome = measure(state, 6.0, PretendLoad(running=4, tokens=20))
    assert outcome.frames > 50
    assert outcome.requests > 10
    assert 0 < outcome.delay_p50_us <= outcome.delay_p99_us
    if state == "well":
        assert 0 < outcome.sent <= outcome.requests
        assert outcome.dropped == 0
    else:
        assert outcome.sent == 0


def test_the_table_has_medians_of_the_repeats_and_sums_of_spans() -> None:
    runs = [Outcome("well", 9, 10.0 * i, 100.0 * i, 50, 40, i) for i in (1, 2, 3)]
    head, line = table(runs)
    assert head.split()[0] == "collector"
    assert line.split() == ["well", "20", "200", "100", "200", "300", "150", "120", "6"]
