"""vLLM's scheduler with TRAIL's order: shortest predicted remaining work first, with limited preemption."""

import os
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from trail.engine.log import logger
from trail.engine.order.side import SchedulerSide
from trail.engine.report.stream import SHUTDOWN_S
from trail.engine.start.config import EngineConfig


class TrailScheduler(AsyncScheduler):  # type: ignore[misc]  # vLLM is untyped here
    """Orders vLLM's queues by the sidecar's board before each of vLLM's own `schedule()` calls.

    Protected requests first (admitted, and at least `floor(c * initial prediction)` tokens old), then by
    predicted remaining tokens, ties by arrival. Without a living sidecar, or when TRAIL's own code fails,
    requests are served first come, first served, as by vLLM without TRAIL. Which tokens a request gets never
    changes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._trail: SchedulerSide | None = None
        try:
            config = EngineConfig.from_environ(os.environ)
            if config.enabled:
                self._trail = SchedulerSide(self, config)
            elif config.problem:
                logger.warning("TRAIL: off: %s", config.problem)
        except Exception as error:  # noqa: BLE001 - vLLM must start whatever is wrong with TRAIL
            logger.warning(
                "TRAIL: off, the scheduler cannot be extended: %s: %s", type(error).__name__, error
            )

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        trail = self._trail
        if trail is None:
            return super().schedule(*args, **kwargs)
        trail.before(throttled=bool(args[0] if args else kwargs.get("throttle_prefills", False)))
        try:
            output = super().schedule(*args, **kwargs)
        finally:
            trail.restore()
        trail.after(output)
        self._drop_if_off()
        return output

    def add_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        result = super().add_request(request, *args, **kwargs)
        if self._trail is not None:
            self._trail.added(request)
        return result

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        if self._trail is not None:
            self._trail.preempting(request)
        return super()._preempt_request(request, *args, **kwargs)

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        if self._trail is not None:
            self._trail.freed(request)
        return super()._free_request(request, *args, **kwargs)

    def shutdown(self, *args: Any, **kwargs: Any) -> Any:
        if self._trail is not None:
            self._trail.stop(wait_s=SHUTDOWN_S)
        return super().shutdown(*args, **kwargs)

    def _drop_if_off(self) -> None:
        if self._trail is not None and self._trail.off:
            self._trail.stop()
            self._trail = None
