"""Options over environment over defaults, and a sentence for what cannot be."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import pytest

from trail.policy.spec import PolicySpec
from trail.sidecar.config import SidecarConfig, add_arguments, from_arguments


def parse(environ: Mapping[str, str], *words: str) -> SidecarConfig:
    parser = argparse.ArgumentParser()
    add_arguments(parser, environ)
    return from_arguments(parser.parse_args(words))


def test_environment_gives_the_defaults() -> None:
    config = parse(
        {
            "TRAIL_DIR": "/x", "TRAIL_PREDICTOR": "/p", "TRAIL_POLICY": "trail-c0.2", "TRAIL_ENGINES": "4",
            "TRAIL_METRICS_PORT": "-1", "TRAIL_METRICS_HOST": "10.0.0.7", "TRAIL_KV_RESERVE_TOKENS": "64",
            "TRAIL_RANK_ADDRESS": "127.0.0.1:9", "TRAIL_THREADS": "2",
            "TRAIL_QUALITY": "watch", "TRAIL_PACING": "own-cores",
        }
    )  # fmt: skip
    assert config == SidecarConfig(
        directory=Path("/x"), predictor=Path("/p"), policy=PolicySpec("trail", 0.2, 64.0), engines=4,
        threads=2, quality="watch", pacing="own-cores", metrics_host="10.0.0.7", metrics_port=-1,
        rank_address="127.0.0.1:9",
    )  # fmt: skip


def test_options_win_over_the_environment() -> None:
    environ = {"TRAIL_POLICY": "fcfs", "TRAIL_ENGINES": "4"}
    config = parse(environ, "--policy", "oracle-c0", "--engines", "1", "--kv-reserve-tokens", "-1")
    assert (config.policy, config.engines) == (PolicySpec("oracle", 0.0, -1.0), 1)


def test_empty_predictor_variable_means_none() -> None:
    assert parse({"TRAIL_PREDICTOR": "", "TRAIL_POLICY": "fcfs"}).predictor is None


def test_bad_variable_is_reported_like_a_bad_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse({"TRAIL_ENGINES": "many", "TRAIL_POLICY": "fcfs"})
    assert ended.value.code == 2
    assert "'many'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--policy", "trail"], "needs a predictor"),
        (["--policy", "trail-c2", "--predictor", "/p"], "c is"),
        (["--policy", "fcfs", "--threads", "0"], "threads must be at least 1"),
        (["--policy", "fcfs", "--metrics-port", "70000"], "metrics-port must be at most 65535"),
        (["--policy", "fcfs", "--dir", "/" + "d" * 120], "longer than the 107 bytes"),
        (["--policy", "fcfs", "--quality", "off"], "quality must be one of act, watch"),
        (["--policy", "fcfs", "--pacing", "slow"], "pacing must be one of auto, shared-cores, own-cores"),
        (["--policy", "fcfs", "--kv-reserve-tokens", "nan"], "kv_reserve_tokens"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse({}, *words)
