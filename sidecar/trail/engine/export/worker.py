"""vLLM's worker with the export of hidden states behind each step."""

from typing import TYPE_CHECKING, Any

import torch
from vllm.platforms import current_platform

from trail.engine.export.setup import start_export
from trail.engine.log import logger

if TYPE_CHECKING:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker
elif current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker

MAX_FAILURES = 3
"""Consecutive steps whose export failed before export is switched off."""


class TrailWorker(PlatformWorker):  # type: ignore[misc]  # vLLM's classes carry no usable annotations
    """The platform's worker; what vLLM calls behaves as without TRAIL, whatever happens to the export."""

    _trail_exporter = None
    _trail_failures = 0

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the model, then ask it for the exported layers, before anything is compiled or captured."""
        super().load_model(*args, **kwargs)
        self._trail_close()  # elastic scaling loads the model again
        try:
            self._trail_exporter = start_export(self)
        except Exception as error:  # noqa: BLE001 - vLLM must come up whatever happens here
            logger.warning("TRAIL: export is off: %s: %s", type(error).__name__, error)

    @torch.inference_mode()
    def execute_model(self, scheduler_output: Any) -> Any:
        """Run the step, then export what it computed."""
        output = super().execute_model(scheduler_output)
        exporter = self._trail_exporter
        if exporter is not None:
            try:
                exporter.step(scheduler_output, self.model_runner)
                self._trail_failures = 0
            except Exception as error:  # noqa: BLE001 - the step is done and must count
                self._trail_export_failed(error)
        return output

    def shutdown(self) -> None:
        """Let go of the ring, then shut down."""
        self._trail_close()
        super().shutdown()

    def _trail_close(self) -> None:
        exporter, self._trail_exporter = self._trail_exporter, None
        if exporter is not None:
            try:
                exporter.close()
            except Exception as error:  # noqa: BLE001 - what vLLM asked for goes on
                logger.warning("TRAIL: closing the export failed: %s", error)

    def _trail_export_failed(self, error: Exception) -> None:
        self._trail_failures += 1
        if self._trail_failures == 1:
            logger.warning("TRAIL: a step was not exported: %s: %s", type(error).__name__, error)
        if self._trail_failures >= MAX_FAILURES:
            logger.warning("TRAIL: export is off after %d failures in a row", MAX_FAILURES)
            self._trail_close()
