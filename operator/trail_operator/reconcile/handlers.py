"""kopf's watches. Only `on.event`: no finalizer and no annotation of the framework on anybody's objects.

kopf has a thread and an event loop of its own: it takes over the signals of a main thread, and when its
watches end it cancels every task that it does not know. One watch that fails ends all of them, so that "they
run" is said of all together.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import kopf

from trail_operator import names
from trail_operator.health import Part
from trail_operator.metrics import Metrics
from trail_operator.reconcile.blocked import shortened
from trail_operator.reconcile.controller import Controller

AGAIN_S = (1.0, 2.0, 5.0, 10.0)
"""Pauses before the watches are begun again; the last one for ever."""
SETTLED_S = 5.0
"""Refused watches end sooner than this, after all that kopf tries by itself; those that last work."""
_POLL_S = 0.2
_STOP_S = 10.0
BACKOFFS_S = (0.5, 1.0, 2.0)
"""kopf's own pauses before it gives a request up. Few: what it tries meanwhile is told to nobody."""

Hear = Callable[[str | None, Mapping[str, Any]], None]
"""Takes the type and the object of a watch event."""

log = logging.getLogger("trail.operator.watch")


class Watches:
    """Hands every event to the controller, on the event loop that `run` is called on."""

    def __init__(self, controller: Controller, metrics: Metrics, health: Part, identity: str) -> None:
        """`identity` is this replica's name."""
        self._controller = controller
        self._metrics = metrics
        self._health = health
        self._identity = identity
        self._stop = threading.Event()
        self._began_again = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Watches until `stop`."""
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._watch, args=(loop,), name="trail-watch", daemon=True)
        thread.start()
        try:
            await stop.wait()
        finally:
            self._stop.set()
            await asyncio.to_thread(thread.join, _STOP_S)

    async def whenever_begun_again(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does `work` each time that watches are back: nobody else tells what came meanwhile."""
        while True:
            await self._began_again.wait()
            self._began_again.clear()
            await work()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """What ends the watches, a refused permission say, is told and tried again."""
        failures = 0
        while not self._stop.is_set():
            settled = asyncio.Event()
            try:
                asyncio.run(self._once(loop, settled, again=failures > 0))
                why = "they ended"
            except BaseException as error:  # noqa: BLE001 - whatever it is, this thread goes on and says so
                why = shortened(f"{type(error).__name__}: {' '.join(str(error).split())}")
                self._metrics.failures.labels(part="watch", cause=type(error).__name__).inc()
            self._metrics.watches_up.set(0)
            if self._stop.is_set():
                return
            failures = 1 if settled.is_set() else failures + 1
            pause_s = AGAIN_S[min(failures, len(AGAIN_S)) - 1]
            self._health.fails(why)
            log.error("the watches ended: %s; again in %.0f s", why, pause_s)
            self._stop.wait(pause_s)

    async def _once(self, loop: asyncio.AbstractEventLoop, settled: asyncio.Event, *, again: bool) -> None:
        """kopf, from its start to its end, whatever ends it. Raises as it does.

        It is cancelled and gets no flag to stop by: where a watch fails it would leave behind the thread or
        task that waits for the flag, and wait for that.
        """
        oversight = asyncio.create_task(self._oversee(loop, settled, again=again))
        watches = asyncio.ensure_future(
            kopf.operator(
                registry=self._registry(loop),
                settings=make_settings(),
                # Without one kopf asks for the name of a user that a container need not have.
                identity=cast("Any", self._identity),
                clusterwide=True,
                standalone=True,
            )
        )
        await asyncio.wait({oversight, watches}, return_when=asyncio.FIRST_COMPLETED)
        for task in (oversight, watches):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watches

    async def _oversee(self, loop: asyncio.AbstractEventLoop, settled: asyncio.Event, *, again: bool) -> None:
        """Says that the watches run once they have for a while; ends with the stop."""
        began_s = asyncio.get_running_loop().time()
        while not self._stop.is_set():
            self._health.tries()
            if asyncio.get_running_loop().time() - began_s >= SETTLED_S:
                if not settled.is_set():
                    settled.set()
                    self._metrics.watches_up.set(1)
                    if again:
                        log.info("the watches are back")
                        with contextlib.suppress(RuntimeError):  # the process ends
                            loop.call_soon_threadsafe(self._began_again.set)
                self._health.works()
            await asyncio.sleep(_POLL_S)

    def _registry(self, loop: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
            return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

        def watch(group: str, version: str, plural: str, hear: Hear, **more: Any) -> None:
            @kopf.on.event(group, version, plural, registry=registry, id=plural, **more)
            def handle(event: Any, **_: Any) -> None:
                # The loop is closed when the process ends: nobody needs the event then.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._hear, hear, event["type"], dict(event["object"]))

        controller = self._controller
        watch(names.GROUP, names.VERSION, names.PLURAL, controller.policy_event)
        watch("", "v1", "namespaces", controller.namespace_event)
        watch("apps", "v1", "deployments", lambda t, o: controller.workload_event(t, o, "Deployment"))
        watch("apps", "v1", "statefulsets", lambda t, o: controller.workload_event(t, o, "StatefulSet"))
        watch("", "v1", "pods", controller.pod_event, labels={names.INJECTED_LABEL: "true"})
        return registry

    def _hear(self, hear: Hear, kind: str | None, obj: Mapping[str, Any]) -> None:
        try:
            hear(kind, obj)
        except Exception:
            self._metrics.failures.labels(part="event", cause="internal").inc()
            log.exception("an event of %s was lost", (obj.get("metadata") or {}).get("name"))


def make_settings() -> kopf.OperatorSettings:
    """kopf without its own Events, peering and last resorts."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # It would watch the definitions of resources, which the operator has no right to see.
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    # A watch that went silent is noticed.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.networking.error_backoffs = BACKOFFS_S
    # A server that accepts and never answers would look like one with nothing to tell.
    settings.networking.connect_timeout = 3.0
    settings.networking.request_timeout = 30.0
    return settings
