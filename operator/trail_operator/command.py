"""`python -m trail_operator`: the operator as a process."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from trail_operator import names
from trail_operator.admission.stamp import Stamp, patch
from trail_operator.admission.webhook import CertificateError, CertificateWatch, Webhook, listening
from trail_operator.cluster_api.kube import Kube, KubeError, Leases, path
from trail_operator.cluster_api.lease import Elector, LeaseConfig
from trail_operator.config import OperatorConfig, from_arguments, make_parser
from trail_operator.control.loop import Change, ControlLoop
from trail_operator.control.loop_port import LoopPort, NoLoop, RedisLoop
from trail_operator.control.store import Store, connect
from trail_operator.health import Health
from trail_operator.metrics import Metrics
from trail_operator.reasons import EventReason
from trail_operator.reconcile.cluster import Cluster, to_workload
from trail_operator.reconcile.controller import APPS, PLURALS, Controller
from trail_operator.reconcile.event_recorder import EventRecorder, Subject
from trail_operator.reconcile.handlers import Watches
from trail_operator.reconcile.listing import load, look_at_version
from trail_operator.reconcile.withdrawal import Withdrawals

if TYPE_CHECKING:
    from trail_operator.control.spans import Spans

EXIT_USAGE = 2
_AGAIN_S = 10.0
_RESYNC_S = 300.0
_VERSION_S = 3600.0
_SWITCH_S = 0.5e-3
"""A review needs the interpreter several times, and the watches' thread would keep it for 5 ms at each."""

log = logging.getLogger("trail.operator")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT. 0 after that, 2 for bad input, 1 for what goes wrong."""
    args = make_parser(os.environ).parse_args(argv)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = from_arguments(args)
    except ValueError as error:
        log.error("%s", error)  # noqa: TRY400 - bad input is told in one line
        return EXIT_USAGE
    logging.getLogger().setLevel(args.log_level.upper())
    # kopf tells every event of every object, and of a watch that is refused every try with a traceback. What
    # ended the watches is told by `handlers`, in a line.
    logging.getLogger("kopf").setLevel(logging.DEBUG if args.log_level == "debug" else logging.CRITICAL)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    sys.setswitchinterval(_SWITCH_S)
    try:
        asyncio.run(clean(config) if args.command == "clean" else serve(config))
    except (ConnectionError, CertificateError, KubeError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message says what to do
        return 1
    return 0


async def serve(config: OperatorConfig, *, stop: asyncio.Event | None = None) -> None:
    """The operator, until `stop` or a signal."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, stop.set)
    async with await Kube.connect() as kube:
        await Operator(config, kube).run(stop)


class Operator:
    """The parts put together."""

    def __init__(self, config: OperatorConfig, kube: Kube) -> None:
        self.config = config
        self.kube = kube
        self.metrics = Metrics()
        self.health = Health()
        self.cluster = Cluster(config.injection, config.default_policy)
        self.recorder = EventRecorder(kube, config.identity)
        self.elector = Elector(
            Leases(kube, config.namespace),
            LeaseConfig(config.lease, config.namespace, config.identity),
            health=self.health.lease,
        )
        self.control: ControlLoop | None = None
        self._spans = _spans(config)
        self._store: Store | None = None
        port: LoopPort = NoLoop()
        if config.redis_url:
            self._store = Store(connect(config.redis_url), config.injection.redis_key)
            self.control = ControlLoop(
                self._store, is_leader=self.elector.is_leader, on_change=self._c_changed
            )
            port = RedisLoop(self.control)
        self.controller = Controller(
            self.cluster,
            kube,
            self.recorder,
            self.metrics,
            is_leader=self.elector.is_leader,
            loop=port,
            withdrawals=Withdrawals(
                self.cluster, kube, self.recorder, self.metrics, after_s=config.withdraw_after_s
            ),
        )
        self.webhook = Webhook(lambda: self.cluster.view, self.controller.skipped, self.metrics, self.health)
        self.watches = Watches(self.controller, self.metrics, self.health.watches, config.identity)

    async def run(self, stop: asyncio.Event) -> None:
        """Everything is known before the first pod is decided on. Ends with `stop`."""
        async with contextlib.AsyncExitStack() as servers:
            host = self.config.webhook_host or None
            await servers.enter_async_context(
                listening(self.webhook.plain_app(), host, self.config.metrics_port)
            )
            watch = (
                CertificateWatch(self.config.certificate, self.metrics) if self.config.certificate else None
            )
            if not await self._until(stop, self._first_look):
                return
            if watch is not None:
                port = await servers.enter_async_context(
                    listening(self.webhook.app(), host, self.config.webhook_port, watch.context)
                )
                log.info("the webhook answers on port %d", port)
            await self._work(stop, watch)
        if self._store is not None:
            await self._store.close()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)

    async def _work(self, stop: asyncio.Event, watch: CertificateWatch | None) -> None:
        tasks = [
            self.controller.run(),
            self.recorder.run(),
            self._again_and_again(_RESYNC_S, self._resync),
            self._again_and_again(_VERSION_S, self._look_at_version),
            self.watches.whenever_begun_again(self._resync),
        ]
        if watch is not None:
            tasks.append(watch.run())
        if self.control is not None:
            tasks.append(self.control.run(stop))
        running = [asyncio.create_task(task) for task in tasks]
        lease = asyncio.create_task(self.elector.run(stop))
        watches = asyncio.create_task(self.watches.run(stop))
        ended = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait(
                {ended, lease, watches, *running}, return_when=asyncio.FIRST_COMPLETED
            )
            stop.set()
            await asyncio.wait({lease, watches}, timeout=10.0)
        finally:
            for task in (*running, lease, watches, ended):
                task.cancel()
            await asyncio.gather(*running, lease, watches, ended, return_exceptions=True)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _first_look(self) -> None:
        await self._look_at_version()
        await load(self.cluster, self.controller, self.kube)
        self.health.looked()

    async def _resync(self) -> None:
        """Looks at everything again. What goes wrong is told, and left to the next time."""
        try:
            await load(self.cluster, self.controller, self.kube)
        except (KubeError, OSError, TimeoutError) as error:
            self._cannot_look(error)

    async def _look_at_version(self) -> None:
        native = {"always": True, "never": False}.get(self.config.native)
        if native is None:
            native = await look_at_version(self.kube)
        if self.cluster.set_native(native):
            log.info("sidecars are injected as %s", "native sidecars" if native else "plain containers")

    async def _until(self, stop: asyncio.Event, work: Callable[[], Awaitable[None]]) -> bool:
        """Does `work` as often as it takes; false where `stop` came first."""
        while not stop.is_set():
            try:
                await work()
            except (KubeError, OSError, TimeoutError) as error:
                self.health.cluster.fails(f"{type(error).__name__}: {error}")
                log.warning("cannot look at the cluster: %s; again in %.0f s", error, _AGAIN_S)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _AGAIN_S)
            else:
                return True
        return False

    async def _again_and_again(self, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await work()
            except (KubeError, OSError, TimeoutError) as error:
                self._cannot_look(error)

    def _cannot_look(self, error: Exception) -> None:
        self.metrics.failures.labels(part="resync", cause=type(error).__name__).inc()
        log.warning("cannot look at the cluster: %s: %s; again later", type(error).__name__, error)

    async def _c_changed(self, change: Change) -> None:
        self.metrics.c_changes.inc()
        self.metrics.c.labels(workload=change.workload).set(change.c)
        if self._spans is not None:
            self._spans.tell(change)
        namespace, kind, name = change.workload.split("/", 2)
        record = self.cluster.workloads.get(change.workload)
        if record is not None:
            subject = Subject(APPS, record.kind, namespace, name, record.uid)
        else:
            subject = Subject("", kind, namespace, name)
        before = "" if change.before is None else f" from {change.before:g}"
        self.recorder.record(
            subject, str(EventReason.C), f"c{before} to {change.c:g}: {change.reason}", warning=False
        )


def _spans(config: OperatorConfig) -> "Spans | None":
    if not config.otlp_endpoint:
        return None
    # Tens of megabytes, which only those pay who look at spans.
    from trail_operator.control.spans import Spans

    return Spans.to(config.otlp_endpoint, config.identity)


async def clean(config: OperatorConfig) -> None:
    """Takes the webhook's configuration and every stamp out of the cluster; pods roll without TRAIL."""
    async with await Kube.connect() as kube:
        await remove_stamps(kube, config.webhook_configuration)


async def remove_stamps(kube: Kube, webhook_configuration: str) -> int:
    """As `clean`; returns how many workloads were changed. Raises KubeError."""
    where = path(
        "admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", None, webhook_configuration
    )
    try:
        # First, or the pods that roll would be injected again.
        await kube.delete(where)
    except KubeError as error:
        if error.status != 404:
            raise
    changed = 0
    for kind, plural in PLURALS.items():
        for obj in await kube.all(path(APPS, plural)):
            record = to_workload(obj, kind)
            body = patch(record.stamp, Stamp(), record.version)
            if body is not None:
                # Whatever else changes on it at the moment does not matter here.
                del body["metadata"]
                await kube.patch(path(APPS, plural, record.namespace, record.name), body)
                changed += 1
                log.info("%s: stamp removed", record.key)
    log.info("%d workloads cleaned of %s", changed, names.STAMPED_HASH)
    return changed
