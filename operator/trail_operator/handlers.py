"""kopf's watches. Only `on.event`: no finalizer and no annotation of the framework on anybody's objects.

kopf has a thread and an event loop of its own: it takes over the signals of a main thread, and when its
watches end it cancels every task that it does not know.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import kopf

from trail_operator import names
from trail_operator.controller import Controller
from trail_operator.metrics import Metrics

AGAIN_S = 10.0
_STOP_S = 10.0
_BACKOFFS_S = (1, 2, 5, 10, 30)

Hear = Callable[[str | None, Mapping[str, Any]], None]
"""Takes the type and the object of a watch event."""

log = logging.getLogger("trail.operator.watch")


class Watches:
    """Hands every event to the controller, on the event loop that `run` is called on."""

    def __init__(self, controller: Controller, metrics: Metrics) -> None:
        self._controller = controller
        self._metrics = metrics
        self._stop = threading.Event()

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

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """What ends the watches, a refused permission say, is told and tried again."""
        while not self._stop.is_set():
            try:
                asyncio.run(
                    kopf.operator(
                        registry=self._registry(loop),
                        settings=make_settings(),
                        clusterwide=True,
                        standalone=True,
                        stop_flag=self._stop,
                    )
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, pods go on being served
                self._metrics.failures.labels(part="watch", cause=type(error).__name__).inc()
                log.error("the watches ended: %s: %s; again in %.0f s", type(error).__name__, error, AGAIN_S)  # noqa: TRY400 - a refusal needs no traceback
            self._stop.wait(AGAIN_S)

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
    settings.networking.error_backoffs = _BACKOFFS_S
    return settings
