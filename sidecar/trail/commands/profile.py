"""`trail profile`: options, what is said on the way, and how it ends."""

import argparse
import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from trail.bench.workload import PromptFileError
from trail.serving.offline import EngineError
from trail.serving.setup import SetupError, require_vllm
from trail.training.profile.collector import ExportError
from trail.training.profile.data import FORMATS
from trail.training.profile.engine import recording_engine
from trail.training.profile.estimate import NoRoomError, size_text
from trail.training.profile.job import Job, beyond_context_note, prepare
from trail.training.profile.progress import Display
from trail.training.profile.recorder import Recorder
from trail.training.recording.layout import RecordingError
from trail.training.recording.store import LOG_FILE, RecordingStore
from trail.wire.errors import WireError

_INTERRUPTED = 130


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trail profile`; whatever is not among them goes to vLLM untouched."""
    parser.usage = "trail profile MODEL --prompts FILE --out DIR [options] [vLLM arguments]"
    parser.description = (
        "Have MODEL answer prompts under vLLM and record its hidden states, to train a predictor on. A run"
        " that was interrupted goes on when the same command is given again. Options that are not listed here"
        " are vLLM's own, for example --max-num-seqs 64."
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="model directory, Hugging Face id, or 'demo'")
    add("--prompts", required=True, metavar="FILE", help="data set of prompts (.gz allowed), or 'demo'")
    add("--out", required=True, type=Path, metavar="DIR", help="directory of the recording")
    add("--format", choices=("auto", *FORMATS), default="auto", help="of the data set (%(default)s)")
    add("--limit", type=int, metavar="N", help="take the first N prompts only")
    add("--samples", type=int, default=4, help="answers recorded a prompt (%(default)s)")
    add("--layers", default="all", help="all, or numbers of hidden_states like 4,5 (%(default)s)")
    add("--every", type=int, default=1, metavar="K", help="record every K-th token (%(default)s)")
    add("--max-tokens", type=int, default=2048, metavar="N", help="limit of an answer (%(default)s)")
    add("--temperature", type=float, default=1.0, help="sampling temperature (%(default)s)")
    add("--top-p", type=float, default=1.0, help="sampling nucleus (%(default)s)")
    add("--seed", type=int, default=0, help="seed of the sampling (%(default)s)")
    add(
        "--shard-requests",
        type=int,
        default=256,
        metavar="N",
        help="requests that are kept or lost together when a run is interrupted (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Record. Exit code 0, 1: the engine or the disk failed, 2: bad input, 130: interrupted."""
    console = Console()
    store: RecordingStore | None = None
    try:
        with _interruptible():
            job = prepare(args)
            for note in job.notes:
                console.print(note, highlight=False, soft_wrap=True)
            with RecordingStore(args.out) as store:
                _record(job, store, console)
    except (SetupError, PromptFileError, RecordingError) as error:
        return _failed(str(error), 2)
    except (EngineError, ExportError, WireError, NoRoomError) as error:
        return _failed(f"{error}{_kept(store)}", 1)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cause = f"the disk of {args.out} is full" if full else f"{error}"
        return _failed(f"{cause}; put it right and give the same command again{_kept(store)}", 1)
    except KeyboardInterrupt:
        return _failed(f"interrupted{_kept(store)}", _INTERRUPTED)
    return 0


def _record(job: Job, store: RecordingStore, console: Console) -> None:
    """Record what `store` misses of `job`."""
    if store.settings is not None:
        # What only a running engine knows is presumed to be as before, so that other settings are refused at
        # once and a complete recording needs no engine.
        before = store.settings
        store.begin(
            *job.settings(
                max_model_len=before.max_model_len, dtype=before.dtype, vllm_version=before.vllm_version
            )
        )
        if not store.missing():
            console.print(f"{store.path} is complete", highlight=False, soft_wrap=True)
            return
    require_vllm(trail=True)
    log = store.path / LOG_FILE
    console.print(f"starting vLLM (log: {log})", highlight=False, soft_wrap=True)
    with recording_engine(job.engine, log) as (engine, ring):
        facts = engine.wait_ready(ring.beat)
        job.check(facts)
        settings, prompts = job.settings(
            max_model_len=facts.max_model_len, dtype=facts.dtype, vllm_version=facts.vllm_version
        )
        store.begin(settings, prompts)
        shards = settings.shards()
        missing = store.missing()
        done = settings.requests - sum(plan.requests for plan in missing)
        with Display(console, requests=settings.requests, done=done, shards=len(shards)) as display:
            display.say(
                f"recording {settings.requests} requests ({settings.prompts} prompts, {settings.samples}"
                f" each), layers {', '.join(map(str, settings.layers))}, in {len(shards)} shards"
                + (f"; {len(shards) - len(missing)} are there already" if done else "")
            )
            note = beyond_context_note(job.prompts, prompts, settings.max_model_len)
            if note:
                display.say(note)
            recorder = Recorder(store, settings, prompts, engine, ring, slots=facts.slots, progress=display)
            recorder.record()
    size, requests = store.size()
    console.print(f"{store.path}: {requests} requests, {size_text(size)}", highlight=False, soft_wrap=True)


def _failed(message: str, code: int) -> int:
    print(f"trail profile: {message}", file=sys.stderr)
    return code


def _kept(store: RecordingStore | None) -> str:
    """What is there already and how to go on."""
    if store is None or store.settings is None:
        return ""
    shards = len(store.settings.shards())
    kept = shards - len(store.missing())
    return f"; {kept} of {shards} shards are recorded in {store.path}, the same command goes on from there"


@contextmanager
def _interruptible() -> Iterator[None]:
    """The first SIGINT or SIGTERM interrupts; further ones must not keep vLLM from being stopped."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
