"""The child of `trail.serving.offline`: vLLM, which answers the requests that come over a socket.

TRAIL is switched on in it by the environment alone. The end of the connection is the end of the process and
of all that it started.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

SHUTDOWN_S = 12.0
"""vLLM's time to end by itself."""
KILL_S = 3.0
"""From the last request to end to the end."""


class EngineRefusedError(Exception):
    """vLLM cannot run as it is asked to; the message says why."""


class Link:
    """The connection to the parent."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._lines = self._socket.makefile("r", encoding="utf-8")

    def send(self, **message: Any) -> None:
        """Send one message; a parent that is gone hears nothing."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def read_into(self, inbox: "asyncio.Queue[Any]", loop: asyncio.AbstractEventLoop) -> None:
        """Pass on what comes, from a thread; the end of the connection is the end of this process."""
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the loop has ended
            for line in self._lines:
                loop.call_soon_threadsafe(inbox.put_nowait, json.loads(line))
        os.kill(os.getpid(), signal.SIGTERM)


def end_properly(directory: Path) -> None:
    """Have SIGTERM unwind the main thread wherever it is, so that vLLM gives its shared memory back."""

    def end(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut that short
        killer = threading.Timer(SHUTDOWN_S, _kill_group, (directory,))
        killer.daemon = True
        killer.start()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)


def _kill_group(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    if os.getpgid(0) == os.getpid():  # ours alone, not that of a shell
        os.killpg(0, signal.SIGTERM)  # what still listens cleans up after itself
        time.sleep(KILL_S)
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


class _Reasons(logging.Filter):
    """Keeps the line in which TRAIL says that it is off; a filter, because vLLM takes handlers away."""

    line = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Look at a record and let it pass."""
        message = record.getMessage()
        if message.startswith("TRAIL is off"):
            self.line = message
        return True


def configure(spec: Mapping[str, Any]) -> Any:
    """vLLM's configuration from its command-line arguments. Raises EngineRefusedError where it is none."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM's classes carry no usable annotations
        def error(self, message: str) -> Any:
            raise EngineRefusedError(f"vLLM does not take these arguments: {message}")

    args = EngineArgs.from_cli_args(EngineArgs.add_cli_args(Parser()).parse_args(spec["args"]))
    if spec["whole_prompts"]:
        args.enable_prefix_caching = False
        if args.enable_chunked_prefill is None and current_platform.is_cpu():
            # A seed of its own in a prompt that is split over two steps kills vLLM's CPU engine.
            args.enable_chunked_prefill = False
    reasons = _Reasons()
    logging.getLogger("vllm.trail").addFilter(reasons)
    config = args.create_engine_config(UsageContext.LLM_CLASS)
    if spec["layers"]:
        exported = (getattr(config, "additional_config", None) or {}).get("trail", {}).get("layers")
        if exported != spec["layers"]:
            raise EngineRefusedError(reasons.line or "vLLM did not load TRAIL's plugin; see its log")
        if config.parallel_config.data_parallel_size > 1:
            raise EngineRefusedError("one engine records at a time; leave out --data-parallel-size")
    return config


async def serve(link: Link, spec: dict[str, Any]) -> None:
    """Answer requests until this process is told to end or vLLM fails, which is raised."""
    import vllm
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    inbox: asyncio.Queue[Any] = asyncio.Queue()
    arguments = (inbox, asyncio.get_running_loop())
    threading.Thread(target=link.read_into, args=arguments, daemon=True).start()
    config = configure(spec)
    engine = AsyncLLM.from_vllm_config(config, disable_log_stats=True)
    model = config.model_config
    failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def answer(request: dict[str, Any]) -> None:
        try:
            # Like a server, vLLM itself adds the tokens that end an answer: the tokenizer's and those of
            # generation_config.json.
            sampling = vllm.SamplingParams(
                **request["sampling"], detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
            )
            prompt = {"prompt_token_ids": request["prompt"]}
            async for output in engine.generate(prompt, sampling, str(request["id"])):
                tokens = [list(answer.token_ids) for answer in output.outputs]
                reasons = [answer.finish_reason for answer in output.outputs]
            link.send(finished={"id": request["id"], "tokens": tokens, "reasons": reasons})
        except Exception as error:  # noqa: BLE001 - reported; one request less would be a hole
            if not failure.done():
                failure.set_exception(error)

    async def take() -> None:
        while True:
            for request in await inbox.get():
                task = asyncio.create_task(answer(request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    tasks: set[asyncio.Task[None]] = set()
    try:
        link.send(
            ready={
                "vllm_version": vllm.__version__,
                "dtype": str(model.dtype).removeprefix("torch."),
                "max_model_len": model.max_model_len,
                "hidden_size": model.get_hidden_size(),
                "slots": config.scheduler_config.max_num_seqs,
            }
        )
        tasks.add(asyncio.create_task(take()))
        await failure
    finally:
        engine.shutdown()


def main() -> int:
    """Serve as the specification in the first argument says."""
    spec = json.loads(sys.argv[1])
    end_properly(Path(spec["directory"]))
    link = Link(spec["socket"])
    try:
        asyncio.run(serve(link, spec))
    except Exception as error:
        refused = isinstance(error, EngineRefusedError)
        named = str(error) if refused else f"vLLM ended: {type(error).__name__}: {error}"
        logging.getLogger("vllm.trail").exception("the engine ended")
        link.send(failed=" ".join(named.split())[:500])
        return 1
    finally:
        shutil.rmtree(spec["directory"], ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
