"""The sidecar process put together: shared memory, servers, loop, and their start and end in order."""

import contextlib
import gc
import secrets
import stat
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from prometheus_client import start_http_server

from trail.predict.manifest import Manifest, read_manifest
from trail.predict.quality import Quality
from trail.predict.refine import Refiner
from trail.sidecar.api.observe import ObserveService
from trail.sidecar.api.server import (
    ControlService,
    Health,
    LifecycleService,
    PredictorInfo,
    RankingService,
    make_server,
    read_only_services,
    unix_services,
)
from trail.sidecar.config import SidecarConfig
from trail.sidecar.history.decision_log import DecisionLog
from trail.sidecar.history.watch import WATCHERS, WatchHub
from trail.sidecar.logs import get_logger
from trail.sidecar.loop.counters import Metrics
from trail.sidecar.loop.loop import Inbox, SidecarLoop
from trail.sidecar.loop.pipeline import EnginePipeline, Expected, Telemetry
from trail.sidecar.loop.policy_box import PolicyBox
from trail.sidecar.loop.prediction import Predictor
from trail.sidecar.loop.prompting import PromptPredictorLike, PromptState, PromptWorker
from trail.sidecar.loop.rests import YieldCore
from trail.sidecar.pacing import choose
from trail.sidecar.process.cores import own_cores, usable_cores
from trail.sidecar.process.directory_lock import DirectoryLock, SidecarError
from trail.sidecar.quality.monitor import QualityMonitor
from trail.sidecar.requests.stats import RunStats
from trail.sidecar.requests.tracker import RunningMean
from trail.sidecar.telemetry.catalogue import complete
from trail.sidecar.telemetry.families import StateCollector
from trail.sidecar.telemetry.state_metrics import DecisionMetrics
from trail.wire.board import BoardWriter
from trail.wire.frames import FrameReader, RingSpec
from trail.wire.names import board_path, ring_path, socket_path

LEAST_CORES = 0.5
"""A quota below this stops all threads for longer than an engine waits for a heartbeat, whenever they used it
up."""

log = get_logger()


class Stop(Protocol):
    """What ends the sidecar: a `threading.Event`, or the process's signals."""

    def is_set(self) -> bool:
        """Whether it is to end."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; whether it is to end."""
        ...


class Sidecar:
    """One sidecar from `start` to `close`. `close` undoes whatever of `start` has happened."""

    def __init__(self, config: SidecarConfig) -> None:
        """Reads the predictor's manifest. Raises ArtefactError."""
        self.config = config
        self.manifest: Manifest | None = (
            read_manifest(config.predictor) if config.predictor is not None else None
        )
        self._own_cores = own_cores()
        self.pacing = choose(config.pacing, self._own_cores)
        self.policy = PolicyBox(config.policy)
        self.telemetry = Telemetry(Metrics(), RunStats(detailed=config.stats_file is not None))
        self.mean = RunningMean(self.manifest.mean_output_tokens if self.manifest is not None else 0.0)
        self.quality = QualityMonitor(
            Quality(self.manifest, pause=YieldCore(self.pacing)) if self.manifest is not None else None,
            self.pacing,
            has_prompt=self.manifest is not None and self.manifest.has_prompt,
            acts=config.quality == "act",
            on_failure=self.telemetry.metrics.failures.labels(part="quality").inc,
        )
        self.health = Health()
        self.inbox = Inbox()
        self.watch = WatchHub()
        self.pipelines: dict[int, EnginePipeline] = {}
        self.metrics_port: int | None = None
        self.prompts: PromptWorker | None = None
        self._control = self._make_control()
        self._loop: SidecarLoop | None = None
        self._stop = threading.Event()
        self._closers: list[Callable[[], None]] = []

    def start(self) -> None:
        """Shared memory and servers first, so that engines find them; the heartbeat once the probe is loaded.

        Raises SidecarError, ArtefactError or WireError, each naming what to do.
        """
        # The loop must get its turn while another thread runs Python code for long.
        sys.setswitchinterval(self.pacing.thread_switch_s)
        gc.disable()
        self._closers.append(DirectoryLock(self.config.directory).release)
        self._make_pipelines()
        self._log_decisions()
        self.quality.start()
        self._closers.append(lambda: self.quality.stop(0.3))
        self._start_tracing()
        self._serve_unix()
        self._serve_tcp()
        self._serve_metrics()
        self._push_metrics()
        self._load()
        self._start_loop()
        self._link_to_redis()

    def wait(self, stop: Stop, on_loaded: Callable[[], None] = lambda: None) -> None:
        """Keeps health up to date until `stop`; calls `on_loaded` once everything is loaded."""
        told = False
        while not stop.is_set():
            self.refresh_health()
            if not told and (self.prompts is None or self.prompts.state is not PromptState.LOADING):
                told = True
                on_loaded()
            stop.wait(self.pacing.health_every_s)

    def refresh_health(self) -> None:
        """Serving means: the loop goes round, and no engine's predictions are off."""
        loop, hung_after_ns = self._loop, self.pacing.hung_after_s * 1e9
        alive = loop is not None and time.monotonic_ns() - loop.last_round_ns < hung_after_ns
        self.health.set(
            serving=alive and all(pipeline.problem is None for pipeline in self.pipelines.values())
        )

    def close(self) -> None:
        """Stops everything in the reverse order of its start and removes files and socket."""
        self.health.shut_down()
        while self._closers:
            closer = self._closers.pop()
            try:
                closer()
            except Exception:
                log.exception("while stopping")

    def _make_pipelines(self) -> None:
        manifest, config = self.manifest, self.config
        epoch = secrets.randbits(63) | 1
        for engine in range(config.engines):
            board = BoardWriter.create(board_path(config.directory, engine), config.board_rows)
            self._closers.append(lambda board=board: board.close(unlink=True))  # type: ignore[misc]  # bound early
            ring = expected = None
            if manifest is not None and manifest.layer is not None:
                expected = Expected(manifest.hidden_size, manifest.layer)
                spec = RingSpec(manifest.hidden_size, config.ring_rows_per_frame, config.ring_slots)
                ring = FrameReader.create(ring_path(config.directory, engine), spec)
                self._closers.append(lambda ring=ring: ring.close(unlink=True))  # type: ignore[misc]  # bound early
            pipeline = self.pipelines[engine] = EnginePipeline(
                engine,
                board=board,
                ring=ring,
                expected=expected,
                bins=manifest.bins.k if manifest is not None else 1,
                mean=self.mean,
                policy=self.policy,
                telemetry=self.telemetry,
                epoch=epoch,
                pacing=self.pacing,
                quality=self.quality,
                orphan_timeout_s=config.orphan_timeout_s,
            )
            pipeline.timelines.listeners.append(self.watch)
        complete(
            self.telemetry.metrics, self.pipelines.values(), self.policy, lambda: self.mean.value,
            self.quality, pacing=self.pacing,
        )  # fmt: skip

    def _log_decisions(self) -> None:
        path = self.config.decision_log
        if path is None:
            return
        decisions = DecisionLog(
            path, int(self.config.decision_log_mib * 2**20), self.pipelines.values(), self.pacing
        )
        for pipeline in self.pipelines.values():
            pipeline.timelines.listeners.append(decisions)
        metrics = self.telemetry.metrics
        metrics.registry.register(StateCollector(DecisionMetrics(decisions), metrics.failures))
        decisions.start()
        self._closers.append(decisions.close)

    def _start_tracing(self) -> None:
        if self.config.traces is None:
            return
        try:
            from trail.sidecar.telemetry.tracing import TraceCollector, make_tracing

            tracing = make_tracing(self.config.traces, self.pacing)
        except Exception as error:  # noqa: BLE001 - scheduling matters more than its traces
            log.error("no traces: %s; give --otlp-endpoint host:port and trail-serving[sidecar]", error)  # noqa: TRY400
            return
        for pipeline in self.pipelines.values():
            pipeline.timelines.listeners.append(tracing)
        self.telemetry.metrics.registry.register(TraceCollector(tracing))
        tracing.start()
        self._closers.append(tracing.stop)
        log.info("traces go to %s", self.config.traces.endpoint)

    def _serve_unix(self) -> None:
        path = socket_path(self.config.directory)
        try:
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise SidecarError(f"{path} is in the way and is no socket; remove it or give another --dir")
            # The directory is ours, so this is what a killed sidecar left.
            path.unlink()
        except FileNotFoundError:
            pass
        services = unix_services(
            LifecycleService(self.config.engines, self.inbox, self.pacing),
            self._control,
            self._ranking(),
            self._observe(),
            self.health,
        )
        self._serve(f"unix:{path}", services, "the shared directory must be on a file system with sockets")
        self._closers.append(lambda: path.unlink(missing_ok=True))
        path.chmod(0o660)

    def _serve_tcp(self) -> None:
        if self.config.rank_address:
            services = read_only_services(self._ranking(), self._observe(), self.health)
            self._serve(self.config.rank_address, services, "choose another --rank-address")

    def _serve(self, address: str, services: list[Callable[[Any], None]], advice: str) -> None:
        try:
            # A reconnecting engine's old stream may linger beside its present one.
            server = make_server(address, services, streams=2 * self.config.engines + WATCHERS)
        except RuntimeError as error:
            raise SidecarError(f"cannot listen on {address}: {error}; {advice}") from error
        server.start()

        def stop() -> None:
            server.stop(grace=0.1).wait(1.0)

        self._closers.append(stop)

    def _serve_metrics(self) -> None:
        host, port = self.config.metrics_host, self.config.metrics_port
        if port < 0:
            return
        try:
            server, _ = start_http_server(port, addr=host, registry=self.telemetry.metrics.registry)
        except OSError as error:
            # Scheduling matters more than its metrics.
            log.warning("no metrics on %s:%d: %s; set --metrics-port", host, port, error.strerror)
            return
        self.metrics_port = server.server_port
        log.info("metrics on http://%s:%d/metrics", host, server.server_port)

        def stop() -> None:
            server.shutdown()
            server.server_close()

        self._closers.append(stop)

    def _push_metrics(self) -> None:
        if self.config.otlp is None:
            return
        try:
            from trail.sidecar.telemetry.otlp_metrics import OtlpMetrics
        except ImportError as error:
            log.error("metrics are not pushed: %s; install trail-serving[sidecar]", error)  # noqa: TRY400 - says it all
            return
        pushes = OtlpMetrics(self.config.otlp, self.telemetry.metrics.registry, self._models)
        pushes.start()
        self._closers.append(pushes.stop)

    def _models(self) -> dict[str, str]:
        return {
            str(pipeline.engine): pipeline.hello.model
            for pipeline in self.pipelines.values()
            if pipeline.hello is not None
        }

    def _load(self) -> None:
        if self.manifest is None or self.config.predictor is None:
            return
        # torch takes seconds to import; the engines have their files and the socket by this time.
        import torch

        from trail.predict.artefact import load_probe, load_prompt
        from trail.predict.probe import FASTEST, MEASURED_FROM

        torch.set_num_threads(self._threads())
        manifest, path = self.manifest, self.config.predictor
        refiner = Refiner(manifest.bins, manifest.decoding)
        if manifest.layer is not None:
            large = manifest.hidden_size >= MEASURED_FROM
            probe = load_probe(path, manifest).prepared(FASTEST if large else "float32")
            for pipeline in self.pipelines.values():
                pipeline.predictor = Predictor(probe, refiner)

        def load() -> PromptPredictorLike | None:
            prompt = load_prompt(path, manifest)
            if prompt is not None:
                prompt.call_between_layers(YieldCore(self.pacing))
            return prompt

        self.prompts = PromptWorker(
            load,
            refiner.point,
            self.telemetry,
            self.pacing,
            on_loaded=_freeze,
        )

    def _threads(self) -> int:
        """Threads of a prediction: as configured, and no more than there are cores for."""
        cores = usable_cores()
        threads = max(1, min(self.config.threads, int(cores)))
        if threads < self.config.threads:
            log.warning(
                "%d threads are asked for (--threads) and this process may use %.3g cores: %d are used",
                self.config.threads, cores, threads,
            )  # fmt: skip
        if cores < LEAST_CORES:
            log.warning(
                "this process may use %.2g of a core, less than the %.2g that keep its heartbeat on time:"
                " raise the CPU limit (spec.sidecar.resources)", cores, LEAST_CORES,
            )  # fmt: skip
        return threads

    def _start_loop(self) -> None:
        loop = SidecarLoop(self.pipelines, self.inbox, self.prompts, self.telemetry.metrics, self.pacing)
        thread = threading.Thread(target=loop.run, args=(self._stop,), name="trail-loop", daemon=True)

        def stop() -> None:
            self._stop.set()
            thread.join(1.0)

        self._loop = loop
        self._closers.append(stop)
        _freeze()
        thread.start()
        if self.prompts is not None:
            gc.disable()  # until the prompt predictor is there, see _freeze
            prompts = self.prompts
            prompts.start()
            self._closers.append(lambda: prompts.stop(0.3))
        log.info("policy %s, directory %s", self.config.policy.text, self.config.directory)
        log.info(
            "pacing %s (--pacing %s, cores of its own: %d)",
            self.pacing.name, self.config.pacing, self._own_cores,
        )  # fmt: skip

    def _link_to_redis(self) -> None:
        if self.config.redis is None:
            return
        try:
            from trail.sidecar.redis.link import LinkCollector, RedisLink
            from trail.sidecar.redis.pressure import PressureMeter
        except ImportError as error:
            log.error("c is not tuned: %s; install trail-serving[sidecar]", error)  # noqa: TRY400 - says it all
            return
        meter = PressureMeter(self.pipelines.values(), self.policy, lambda: link.generation)
        link = RedisLink(
            self.config.redis,
            self.pacing,
            report=meter.report,
            sample=meter.sample,
            apply=lambda record: self._set_c(record.c, f"by the operator: {record.reason}"),
        )
        self.telemetry.metrics.registry.register(LinkCollector(link))
        link.start()
        self._closers.append(link.stop)

    def _set_c(self, c: float, reason: str) -> None:
        self.policy.set(replace(self.policy.current[0], c=c), reason)

    def _make_control(self) -> ControlService:
        info = None
        if self.manifest is not None:
            m = self.manifest
            info = PredictorInfo(str(self.config.predictor), m.model_id, m.hidden_size, m.layer, m.bins.k)
        return ControlService(
            self.pipelines, self.policy, info,
            lambda: self.prompts.state.value if self.prompts else "", self.pacing,
        )  # fmt: skip

    def _observe(self) -> ObserveService:
        return ObserveService(
            self.pipelines, self.policy, self.watch, self._control.description,
            pacing=self.pacing, pod=self.config.pod,
        )  # fmt: skip

    def _ranking(self) -> RankingService:
        return RankingService(self.policy, lambda: self.mean.value, self._queue_estimate)

    def _queue_estimate(self) -> tuple[float, float]:
        """How long the longest queue of an engine is, and the longest time of a token, in seconds."""
        estimates = [pipeline.queue_estimate for pipeline in self.pipelines.values()]
        return max(e.wait_s for e in estimates), max(e.token_s for e in estimates)


def _freeze() -> None:
    """Spares the collector what was loaded: a full collection over torch's objects would stop the
    heartbeat for longer than the engine waits."""
    gc.freeze()
    gc.enable()


def write_stats(sidecar: Sidecar) -> None:
    """Writes the stats file where one is asked for; failing to is worth a line and no more."""
    path = sidecar.config.stats_file
    if path is None:
        return
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True)
    try:
        sidecar.telemetry.stats.write(path)
    except OSError as error:
        log.warning("cannot write %s: %s", path, error.strerror)
