"""Configuration of the operator: command line over environment over defaults, parsed once."""

import argparse
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trail.wire.names import OPERATOR_PREFIX
from trail_operator.access import valid_key
from trail_operator.admission.webhook import Certificate
from trail_operator.settings import GROUP, NOBODY, InjectionSettings

NATIVE_CHOICES = ("auto", "always", "never")
_CHOICES = {
    "image_pull_policy": ("Always", "IfNotPresent", "Never"),
    "log_level": ("debug", "info", "warning", "error"),
}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class OperatorConfig:
    """Everything the operator is told from outside. Raises ValueError for values out of range."""

    namespace: str
    identity: str
    injection: InjectionSettings
    default_policy: tuple[str, str] | None = None
    certificate: Certificate | None = None
    """None: no webhook, for a first look from a desk."""
    webhook_host: str = ""
    webhook_port: int = 9443
    metrics_port: int = 8080
    redis_url: str = ""
    """Redis as the operator reaches it; empty: c stays where policies put it."""
    native: str = "auto"
    lease: str = "trail-operator"
    withdraw_after_s: float = 60.0
    webhook_configuration: str = "trail-operator"
    otlp_endpoint: str = ""
    """Collector that hears of each change of c; empty: none."""

    def __post_init__(self) -> None:
        for option, name in (("--namespace", self.namespace), ("--lease", self.lease)):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{option} is {name!r}; give a Kubernetes name")
        for option, port in {
            "--webhook-port": self.webhook_port,
            "--metrics-port": self.metrics_port,
        }.items():
            if not 0 <= port <= 65535:
                raise ValueError(f"{option} is {port}; give a port from 0 to 65535 (0: the system chooses)")
        if self.native not in NATIVE_CHOICES:
            raise ValueError(f"--native-sidecars is {self.native!r}; choose {', '.join(NATIVE_CHOICES)}")
        if not 1 <= self.withdraw_after_s <= 3600:
            raise ValueError(f"--withdraw-after is {self.withdraw_after_s}; give 1 to 3600 seconds")
        injection = self.injection
        for option, url in (
            ("--redis-url", self.redis_url),
            ("--sidecar-redis-url", injection.redis_url),
        ):
            # The URL may hold a password: it is not repeated.
            if url and urlsplit(url).scheme not in ("redis", "rediss", "unix"):
                raise ValueError(f"{option} begins with none of redis://, rediss://, unix://")
        if self.otlp_endpoint and urlsplit(self.otlp_endpoint).scheme not in ("http", "https"):
            raise ValueError(
                f"--otlp-endpoint is {self.otlp_endpoint!r}; write http://HOST:PORT or https://..."
            )
        if urlsplit(injection.redis_url).password and not (injection.redis_secret or injection.redis_key):
            raise ValueError(
                "the URL of Redis holds a password, which would stand in every pod: give sidecars one without"
                " (--sidecar-redis-url), or theirs (--sidecar-redis-secret)"
            )
        if injection.redis_key and not valid_key(self.injection.redis_key):
            raise ValueError("--sidecar-redis-key is not 64 hexadecimal digits; let redis_secret make one")


def make_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line; every option can also be given as TRAIL_OPERATOR_NAME."""
    parser = argparse.ArgumentParser(
        prog="trail-operator",
        description="Injects TRAIL into annotated vLLM pods, serves TrailPolicy, and controls c. Every option"
        f" can be set in the environment, too: --lease as {OPERATOR_PREFIX}LEASE.",
    )

    def add(option: str, default: str, text: str, **more: Any) -> None:
        variable = OPERATOR_PREFIX + option.strip("-").replace("-", "_").upper()
        # argparse converts string defaults with `type`, so that a bad variable is reported like a bad option.
        parser.add_argument(option, default=environ.get(variable, default), help=text, **more)

    add("--namespace", "trail-system", "namespace of the operator and its lease (%(default)s)")
    add("--identity", environ.get("HOSTNAME") or socket.gethostname(), "name of this replica (%(default)s)")
    add("--default-policy", "", "TrailPolicy that holds where a namespace has none", metavar="NAMESPACE/NAME")
    add("--sidecar-image", "", "image of the sidecar where a policy names none", metavar="IMAGE")
    add("--engine-image", "", "image of the engine plugin where a policy names none", metavar="IMAGE")
    add(
        "--image-pull-policy",
        "IfNotPresent",
        "of both (%(default)s)",
        choices=_CHOICES["image_pull_policy"],
    )
    add("--user", str(NOBODY), "user id of injected containers, or 'cluster' to let it choose (%(default)s)")
    add("--group", str(GROUP), "group id that sidecar and vLLM share (%(default)s)", type=int)
    add("--redis-url", "", "Redis for the loop on c, as this operator reaches it", metavar="URL")
    add("--sidecar-redis-url", "", "Redis as pods reach it (--redis-url)", metavar="URL")
    add(
        "--sidecar-redis-secret",
        "",
        "secret in each pod's namespace whose key `url` says so instead",
        metavar="NAME",
    )
    add(
        "--sidecar-redis-key",
        "",
        "what passwords of sidecars follow from, where the operator keeps the users of Redis",
        metavar="KEY",
    )
    add(
        "--certificate",
        "",
        "certificate of the webhook in PEM; without it no webhook is served",
        metavar="FILE",
    )
    add("--key", "", "its private key in PEM", metavar="FILE")
    add("--webhook-host", "", "address of the webhook (all)")
    add("--webhook-port", "9443", "port of the webhook (%(default)s)", type=int)
    add("--metrics-port", "8080", "port of /metrics and /healthz (%(default)s)", type=int)
    add(
        "--native-sidecars",
        "auto",
        "sidecars as init containers that stay: auto, always, never (%(default)s)",
    )
    add("--lease", "trail-operator", "Lease that decides which replica acts (%(default)s)", metavar="NAME")
    add("--withdraw-after", "60", "seconds that a pod may wait for our images before TRAIL is taken back",
        type=float, metavar="SECONDS")  # fmt: skip
    add("--webhook-configuration", "trail-operator", "MutatingWebhookConfiguration that `clean` deletes",
        metavar="NAME")  # fmt: skip
    add("--otlp-endpoint", environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        "OTLP collector (HTTP) for a span of each change of c, as http://host:4318",
        metavar="URL")  # fmt: skip
    add("--log-level", "info", "debug, info, warning or error (%(default)s)",
        choices=_CHOICES["log_level"])  # fmt: skip
    parser.add_argument(
        "command", nargs="?", default="run", choices=("run", "clean"),
        help="run; or clean: take every stamp out of the cluster's workloads, so that TRAIL can be removed",
    )  # fmt: skip
    return parser


def from_arguments(args: argparse.Namespace) -> OperatorConfig:
    """The configuration that the parsed arguments state. Raises ValueError naming the option."""
    if bool(args.certificate) != bool(args.key):
        raise ValueError("--certificate and --key belong together; give both or none")
    for option in ("image_pull_policy", "log_level"):
        # argparse does not look at what the environment says.
        choices = _CHOICES[option]
        if getattr(args, option) not in choices:
            name = option.replace("_", "-")
            raise ValueError(f"--{name} is {getattr(args, option)!r}; choose {', '.join(choices)}")
    if args.command == "run" and not (args.sidecar_image.strip() and args.engine_image.strip()):
        raise ValueError(
            "--sidecar-image and --engine-image are needed: what pods get where their policy names none"
        )
    if args.user != "cluster" and not args.user.isdigit():
        raise ValueError(f"--user is {args.user!r}; give a number, or 'cluster'")
    return OperatorConfig(
        namespace=args.namespace,
        identity=args.identity,
        injection=InjectionSettings(
            sidecar_image=args.sidecar_image,
            engine_image=args.engine_image,
            user=None if args.user == "cluster" else int(args.user),
            group=args.group,
            pull_policy=args.image_pull_policy,
            redis_url=args.sidecar_redis_url or args.redis_url,
            redis_secret=args.sidecar_redis_secret,
            redis_key=args.sidecar_redis_key,
        ),
        default_policy=_pair(args.default_policy),
        certificate=Certificate(Path(args.certificate), Path(args.key)) if args.certificate else None,
        webhook_host=args.webhook_host,
        webhook_port=args.webhook_port,
        metrics_port=args.metrics_port,
        redis_url=args.redis_url,
        native=args.native_sidecars,
        lease=args.lease,
        withdraw_after_s=args.withdraw_after,
        webhook_configuration=args.webhook_configuration,
        otlp_endpoint=args.otlp_endpoint,
    )


def _pair(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    namespace, slash, name = text.partition("/")
    if not (slash and _NAME.fullmatch(namespace) and _NAME.fullmatch(name)):
        raise ValueError(f"--default-policy is {text!r}; write NAMESPACE/NAME")
    return namespace, name
