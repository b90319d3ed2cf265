import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.simulation.engine.steptime import (
    COEFFICIENTS,
    PRESET_KV_TOKENS,
    PRESETS,
    TICKS_PER_S,
    StepModel,
    StepModelError,
    StepTicks,
    read_step_model,
    write_step_model,
)

COUNTS = st.integers(1, 300)
TICKS = st.builds(StepTicks, st.integers(1, 10**13), *[st.integers(0, 10**11)] * 3)


@given(TICKS, st.integers(0, 50), COUNTS, st.integers(0, 10**5))
def test_steps_taken_together_take_as_long_as_one_by_one(
    ticks: StepTicks, steps: int, decoding: int, context: int
) -> None:
    one_by_one = sum(ticks.step(decoding, 0, context + i * decoding) for i in range(steps))
    assert ticks.decode(steps, decoding, context) == one_by_one


@given(TICKS, st.integers(0, 10**15), COUNTS, st.integers(0, 10**5))
def test_the_least_number_of_steps_until_a_time(
    ticks: StepTicks, target: int, decoding: int, context: int
) -> None:
    steps = ticks.decode_steps_until(target, decoding, context)
    assert ticks.decode(steps, decoding, context) >= target
    assert steps == 0 or ticks.decode(steps - 1, decoding, context) < target


def test_ticks_are_the_model_to_a_part_in_a_thousand() -> None:
    model = PRESETS["h200-8b"]
    ticks = StepTicks.of(model).step(200, 1000, 250_000) / TICKS_PER_S
    assert ticks == pytest.approx(model.seconds(200, 1000, 250_000), rel=1e-3)


def test_presets_are_the_stated_rates() -> None:
    # H200: 4.8 TB/s, of which 80 %; 989 TFLOP/s, of which 50 %; 8.03e9 parameters of two bytes; 32 layers
    # with 8 heads of 128, keys and values, two bytes.
    h200 = PRESETS["h200-8b"]
    assert h200.fixed_s == pytest.approx(16.06e9 / 3.84e12 + 1.5e-3)
    assert h200.kv_token_s == pytest.approx(131_072 / 3.84e12)
    assert h200.prefill_token_s == pytest.approx(16.06e9 / 494.5e12)
    a100 = PRESETS["a100-8b"]
    assert a100.prefill_token_s / h200.prefill_token_s == pytest.approx(989 / 312)
    assert PRESET_KV_TOKENS["h200-8b"] == int((0.9 * 141e9 - 16.06e9) / 131_072)
    assert PRESET_KV_TOKENS["a100-8b"] == int((0.9 * 80e9 - 16.06e9) / 131_072)


def test_a_model_comes_back_from_its_file(tmp_path: Path) -> None:
    model = StepModel("mine", 0.001, 0.0, 2e-5, 3.5e-9, 2e-3, {"from": "test"})
    write_step_model(tmp_path / "steps.json", model)
    back = read_step_model(str(tmp_path / "steps.json"))
    assert back == model
    assert back.origin == {"from": "test"}
    assert read_step_model("a100-8b") == PRESETS["a100-8b"]


@pytest.mark.parametrize(
    "change", [{"format": 9}, {"coefficients": {}}, {"coefficients": None}, {"name": ...}]
)
def test_a_file_that_is_no_step_model_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    file = tmp_path / "steps.json"
    write_step_model(file, PRESETS["h200-8b"])
    content = json.loads(file.read_text()) | change
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))
    with pytest.raises(StepModelError, match=str(file)):
        read_step_model(str(file))


def test_other_wrong_step_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StepModelError, match="no step model 'b200'"):
        read_step_model("b200")
    (tmp_path / "x.json").write_text("[1")
    with pytest.raises(StepModelError, match="not a step model"):
        read_step_model(str(tmp_path / "x.json"))
    for name in COEFFICIENTS:
        with pytest.raises(StepModelError, match=name):
            StepModel("bad", **{**dict.fromkeys(COEFFICIENTS, 1.0), name: -1.0})
    with pytest.raises(StepModelError, match="no time"):
        StepModel("still", 0.0, 0.0, 1.0, 1.0)
