"""Configuration of the sidecar: command line over environment over defaults, parsed once."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from trail.policy.spec import PolicySpec, parse_policy
from trail.sidecar.pacing import AUTO, CHOICES
from trail.sidecar.redis.config import RedisConfig
from trail.sidecar.telemetry import trace_config
from trail.sidecar.telemetry.otlp_settings import OtlpSettings, otlp_settings
from trail.sidecar.telemetry.trace_config import TraceConfig
from trail.wire import names

QUALITY_MODES = ("act", "watch")
UNIX_PATH_LIMIT = 107  # sun_path of Linux, without the closing zero


@dataclass(frozen=True)
class SidecarConfig:
    """Everything the sidecar is told from outside. Raises ValueError for values out of range."""

    directory: Path
    predictor: Path | None
    policy: PolicySpec
    engines: int = 1
    board_rows: int = 4096
    ring_slots: int = 64
    ring_rows_per_frame: int = 64
    threads: int = 1
    quality: str = "act"
    pacing: str = AUTO
    metrics_host: str = "127.0.0.1"
    metrics_port: int = names.DEFAULT_METRICS_PORT
    rank_address: str = ""
    stats_file: Path | None = None
    decision_log: Path | None = None
    decision_log_mib: float = 64.0
    redis: RedisConfig | None = None
    traces: TraceConfig | None = None
    pod: str = ""
    otlp: OtlpSettings | None = None
    orphan_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("engines", "board_rows", "ring_slots", "ring_rows_per_frame", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.quality not in QUALITY_MODES:
            raise ValueError(f"quality must be one of {', '.join(QUALITY_MODES)}, got {self.quality!r}")
        if self.pacing not in CHOICES:
            raise ValueError(f"pacing must be one of {', '.join(CHOICES)}, got {self.pacing!r}")
        if self.metrics_port > 65535:
            raise ValueError(f"metrics-port must be at most 65535, got {self.metrics_port}")
        if not 1.0 <= self.decision_log_mib < 2**20:
            raise ValueError(f"decision-log-mib must lie in [1, {2**20}), got {self.decision_log_mib}")
        if not self.orphan_timeout_s > 0:
            raise ValueError(f"orphan-timeout-s must be positive, got {self.orphan_timeout_s}")
        if self.predictor is None and self.policy.name not in ("fcfs", "oracle"):
            raise ValueError(
                f"policy {self.policy.name} needs a predictor: give --predictor DIRECTORY (or set"
                f" {names.ENV_PREDICTOR}), or choose --policy fcfs or oracle"
            )
        socket = str(names.socket_path(self.directory))
        if len(socket.encode()) > UNIX_PATH_LIMIT:
            raise ValueError(
                f"{socket} is longer than the {UNIX_PATH_LIMIT} bytes a unix socket's path may have;"
                " choose a shorter --dir"
            )


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Options of `trail sidecar`, with defaults from `environ` (values are checked when parsed)."""
    add = parser.add_argument
    # argparse converts string defaults with `type`, so that a bad variable is reported like a bad option.
    add("--dir", dest="directory", type=Path, default=environ.get(names.ENV_DIR, str(names.DEFAULT_DIR)),
        help="directory shared with vLLM, memory-backed (%(default)s)")  # fmt: skip
    add("--predictor", type=Path, default=environ.get(names.ENV_PREDICTOR) or None,
        help="directory of the predictor artefact; optional for the policies fcfs and oracle")  # fmt: skip
    add("--policy", default=environ.get(names.ENV_POLICY, "trail"), metavar="NAME[-cC]",
        help="fcfs, sjf, trail-prompt, trail, oracle, mlfq, adaptive; with parameters as in trail-c0.2,"
        " fcfs-reserve16, adaptive-k2-ratio3-limit1 (docs/policies.md) (%(default)s)")  # fmt: skip
    add("--kv-reserve-tokens", type=float, default=environ.get(names.ENV_KV_RESERVE), metavar="N",
        help="KV tokens kept free per running request when admitting (negative: no limit)")  # fmt: skip
    add("--engines", type=int, default=environ.get(names.ENV_ENGINES, "1"), metavar="N",
        help="engine cores, that is vLLM's data-parallel size (%(default)s)")  # fmt: skip
    add("--threads", type=int, default=environ.get(names.ENV_THREADS, "1"), metavar="N",
        help="threads of one prediction batch (%(default)s)")  # fmt: skip
    add("--quality", default=environ.get(names.ENV_QUALITY, SidecarConfig.quality), metavar="MODE",
        help="act: correct predictions by how long requests really were, and fall back where they are worse"
        " than none; watch: only say so (%(default)s)")  # fmt: skip
    add("--pacing", default=environ.get(names.ENV_PACING, AUTO), metavar="PROFILE",
        help="shared-cores: rest, so that vLLM keeps its cores; own-cores: predict in every step of 10 ms or"
        " more; auto: own-cores where a whole core is the sidecar's own (%(default)s)")  # fmt: skip
    add("--metrics-host", default=environ.get(names.ENV_METRICS_HOST, "127.0.0.1"), metavar="HOST",
        help="address of the metrics endpoint (%(default)s)")  # fmt: skip
    add("--metrics-port", type=int, metavar="PORT",
        default=environ.get(names.ENV_METRICS_PORT, str(names.DEFAULT_METRICS_PORT)),
        help="0: the system chooses; negative: no endpoint (%(default)s)")  # fmt: skip
    add("--rank-address", default=environ.get(names.ENV_RANK_ADDRESS, ""), metavar="HOST:PORT",
        help="also answer Rank, Observe and health on this TCP address (none)")  # fmt: skip
    # No default is shown: the URL may hold a password.
    add("--redis-url", default=environ.get(names.ENV_REDIS_URL, ""), metavar="URL",
        help=f"Redis through which an operator tunes c (${names.ENV_REDIS_URL})")  # fmt: skip
    add("--workload", default=environ.get(names.ENV_WORKLOAD, ""), metavar="NAMESPACE/KIND/NAME",
        help="what this pod belongs to, in Redis (%(default)s)")  # fmt: skip
    add("--pod", default=environ.get(names.ENV_POD, ""), metavar="NAME",
        help="this pod's name, in Redis (%(default)s)")  # fmt: skip
    trace_config.add_arguments(parser, environ)
    add("--ring-slots", type=int, default=SidecarConfig.ring_slots, metavar="N",
        help="frames the ring holds (%(default)s)")  # fmt: skip
    add("--decision-log", type=Path, default=environ.get(names.ENV_DECISION_LOG) or None, metavar="FILE",
        help="log finished requests and predictions, no text, for trail shadow-report (none)")  # fmt: skip
    add("--decision-log-mib", type=float, metavar="MIB",
        default=environ.get(names.ENV_DECISION_LOG_MIB, str(SidecarConfig.decision_log_mib)),
        help="what the decision log may take of the disk (%(default)s)")  # fmt: skip
    add("--stats-file", type=Path, default=None, metavar="FILE",
        help="write delays and prediction errors of the run to this JSON file at the end")  # fmt: skip
    # OpenTelemetry's own variables, as every program with its SDK reads them.
    parser.set_defaults(otlp=otlp_settings(environ))


def from_arguments(args: argparse.Namespace) -> SidecarConfig:
    """The configuration that the parsed arguments state. Raises ValueError naming the option."""
    policy = parse_policy(args.policy)
    if args.kv_reserve_tokens is not None:
        policy = replace(policy, kv_reserve_tokens=args.kv_reserve_tokens)
    return SidecarConfig(
        directory=args.directory,
        predictor=args.predictor,
        policy=policy,
        engines=args.engines,
        ring_slots=args.ring_slots,
        threads=args.threads,
        quality=args.quality,
        pacing=args.pacing,
        metrics_host=args.metrics_host,
        metrics_port=args.metrics_port,
        rank_address=args.rank_address,
        stats_file=args.stats_file,
        decision_log=args.decision_log,
        decision_log_mib=args.decision_log_mib,
        redis=RedisConfig(args.redis_url, args.workload, args.pod) if args.redis_url else None,
        traces=trace_config.from_arguments(args),
        pod=args.pod,
        otlp=args.otlp,
    )
