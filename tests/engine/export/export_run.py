"""Runs one vLLM engine with the export on and keeps all that comes out of the ring. A script of its own,
because vLLM's processes end cleanly only with their parent.

Usage: export_run.py SPEC.json OUT.npz. SPEC holds `model`, `directory` (TRAIL_DIR), `hidden_size`, `prompts`
(token ids), `max_tokens` (one a prompt), `engine` (arguments of vllm.LLM), `engines` (data-parallel size),
`sampling` and `adapters` (one a prompt), `waves` (sizes of groups, each sent after the one before has ended).
"""

import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from trail.wire.frames import ROW_DTYPE, FrameReader, RingSpec
from trail.wire.keys import request_key
from trail.wire.names import ring_path


class Collector(threading.Thread):
    """Reads the ring until told to stop."""

    def __init__(self, path: Path, hidden_size: int) -> None:
        super().__init__(daemon=True)
        spec = RingSpec(hidden_size=hidden_size, slots=256, lossless=True)
        self.reader = FrameReader.create(path, spec)
        self.rows: list[np.ndarray] = []
        self.vectors: list[np.ndarray] = []
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            self.take()
            time.sleep(0.002)
        self.take()

    def take(self) -> None:
        self.reader.beat()
        while frames := self.reader.read():
            for frame in frames:
                self.rows.append(frame.rows.copy())
                self.vectors.append(frame.vectors.copy())


def sampling(vllm: Any, max_tokens: int, options: dict[str, Any]) -> Any:
    options = dict(options)
    if "choice" in options:
        structured = vllm.sampling_params.StructuredOutputsParams(choice=options.pop("choice"))
        options["structured_outputs"] = structured
    if "regex" in options:
        structured = vllm.sampling_params.StructuredOutputsParams(regex=options.pop("regex"))
        options["structured_outputs"] = structured
    return vllm.SamplingParams(
        **{"temperature": 0.0, "max_tokens": max_tokens, "ignore_eos": True, "detokenize": False, **options}
    )


def generate(spec: dict[str, Any], arguments: dict[str, Any]) -> tuple[list[Any], float]:
    """All requests through `vllm.LLM`, wave by wave; returns the outputs and the number of preemptions."""
    import vllm
    import vllm.sampling_params
    from vllm.lora.request import LoRARequest

    llm = vllm.LLM(**arguments, disable_log_stats=False)
    prompts = spec["prompts"]
    options = spec["sampling"] or [{}] * len(prompts)
    adapters = spec["adapters"] or [None] * len(prompts)
    outputs: list[Any] = []
    for size in spec["waves"] or [len(prompts)]:
        wave = range(len(outputs), len(outputs) + size)
        outputs += llm.generate(
            [{"prompt_token_ids": prompts[i]} for i in wave],
            [sampling(vllm, spec["max_tokens"][i], options[i]) for i in wave],
            use_tqdm=False,
            lora_request=[LoRARequest("adapter", 1, adapters[i]) if adapters[i] else None for i in wave],
        )
    return outputs, sum(m.value for m in llm.get_metrics() if m.name == "vllm:num_preemptions")


async def generate_async(spec: dict[str, Any], arguments: dict[str, Any]) -> list[Any]:
    """All requests at once through `AsyncLLM`, which is what serves several data-parallel engines."""
    import vllm
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))

    async def one(i: int) -> Any:
        prompt = {"prompt_token_ids": spec["prompts"][i]}
        choices = sampling(vllm, spec["max_tokens"][i], {})
        return [output async for output in engine.generate(prompt, choices, str(i))][-1]

    try:
        return await asyncio.gather(*(one(i) for i in range(len(spec["prompts"]))))
    finally:
        engine.shutdown()


def main(spec_path: Path, out_path: Path) -> None:
    spec = json.loads(spec_path.read_text())
    collectors = [
        Collector(ring_path(Path(spec["directory"]), engine), spec["hidden_size"])
        for engine in range(spec["engines"])
    ]
    for collector in collectors:
        collector.start()
    arguments = {
        "model": spec["model"],
        "dtype": "float32",
        "skip_tokenizer_init": True,
        "block_size": 32,
        "max_model_len": 512,
        **spec["engine"],
    }
    if spec["engines"] > 1:
        outputs, preemptions = asyncio.run(generate_async(spec, arguments)), 0.0
    else:
        outputs, preemptions = generate(spec, arguments)
    for collector in collectors:
        collector.stop.set()
        collector.join()
    counters = [c.reader.counters for c in collectors]
    np.savez(
        out_path,
        rows=np.concatenate([np.zeros(0, ROW_DTYPE), *(r for c in collectors for r in c.rows)]),
        vectors=np.concatenate(
            [np.zeros((0, spec["hidden_size"]), np.float32), *(v for c in collectors for v in c.vectors)]
        ),
        per_engine=np.array([sum(map(len, c.rows)) for c in collectors]),
        keys=np.array([request_key(str(i)) for i in range(len(outputs))], np.uint64),
        outputs=np.array(json.dumps([list(o.outputs[0].token_ids) for o in outputs])),
        preemptions=preemptions,
        lost=sum(c.lost for c in counters),
        torn=sum(c.torn for c in counters),
        rejected=sum(sum(c.rejected.values()) for c in counters),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
