"""The operator's command line, and what it says to what it cannot use."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trail_operator.command import main
from trail_operator.config import OperatorConfig, from_arguments, make_parser
from trail_operator.settings import InjectionSettings

IMAGES = ["--sidecar-image", "s:1", "--engine-image", "e:1"]


def parse(*argv: str, environ: dict[str, str] | None = None) -> OperatorConfig:
    return from_arguments(make_parser(environ or {}).parse_args([*IMAGES, *argv]))


def test_options_win_over_the_environment_and_that_over_defaults() -> None:
    environ = {"TRAIL_OPERATOR_LEASE": "from-environment", "TRAIL_OPERATOR_WEBHOOK_PORT": "1234"}
    config = parse("--webhook-port", "4321", environ=environ)
    assert (config.lease, config.webhook_port, config.metrics_port) == ("from-environment", 4321, 8080)
    assert config.injection == InjectionSettings("s:1", "e:1")
    assert config.certificate is None


def test_everything_is_read() -> None:
    config = parse(
        "--default-policy",
        "trail-system/cluster",
        "--user",
        "cluster",
        "--group",
        "7",
        "--redis-url",
        "redis://r:6379",
        "--certificate",
        "/c",
        "--key",
        "/k",
        "--native-sidecars",
        "never",
    )
    assert config.default_policy == ("trail-system", "cluster")
    assert config.injection.user is None
    assert config.injection.group == 7
    assert config.injection.redis_url == config.redis_url == "redis://r:6379"
    assert config.certificate is not None
    assert config.certificate.key == Path("/k")
    assert (
        parse("--redis-url", "redis://a", "--sidecar-redis-url", "rediss://b").injection.redis_url
        == "rediss://b"
    )


@pytest.mark.parametrize(
    ("argv", "environ", "says"),
    [
        (["--default-policy", "cluster"], {}, "NAMESPACE/NAME"),
        (["--user", "me"], {}, "--user is 'me'"),
        (["--certificate", "/c"], {}, "belong together"),
        (["--webhook-port", "70000"], {}, "--webhook-port is 70000"),
        (["--redis-url", "http://hunter2@r"], {}, "--redis-url begins with none"),
        (["--redis-url", "redis://o:hunter2@r"], {}, "would stand in every pod"),
        (["--sidecar-redis-key", "hunter2"], {}, "64 hexadecimal digits"),
        (["--namespace", "No"], {}, "--namespace is 'No'"),
        (["--native-sidecars", "maybe"], {}, "--native-sidecars is 'maybe'"),
        (["--withdraw-after", "0"], {}, "--withdraw-after is 0"),
        ([], {"TRAIL_OPERATOR_LOG_LEVEL": "loud"}, "--log-level is 'loud'"),
        (["--sidecar-image", ""], {}, "--sidecar-image and --engine-image are needed"),
    ],
)
def test_what_cannot_be_used_is_named(argv: list[str], environ: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        parse(*argv, environ=environ)
    assert "hunter2" not in str(error.value)


def test_cleaning_needs_no_images() -> None:
    assert from_arguments(make_parser({}).parse_args(["clean"])).lease == "trail-operator"


def test_a_bad_option_ends_it_with_a_line(capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    assert main([*IMAGES, "--user", "me"]) == 2
    assert "--user is 'me'" in caplog.text


def test_the_module_runs_and_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trail_operator", "--help"], capture_output=True, text=True, check=True
    )
    for option in ("--default-policy", "--native-sidecars", "--withdraw-after", "clean"):
        assert option in done.stdout
