"""Draws answers with real vLLM in a process of its own, which ends vLLM's processes with it.

Usage: `python -m trail.training.evaluate.resample_run SPEC.json OUT.npz`. SPEC holds `model`, `prompts`
(token ids), `n` (answers a prompt), `max_tokens` (one a prompt), `seed`, `dtype`, `max_model_len`,
`max_num_seqs`, `stop_token_ids` and `keep_tokens`. OUT gets `lengths` int32 [prompts, n], `ended` bool
[prompts, n] and, where `keep_tokens` is true, `tokens` int32 (all outputs one after another). Progress goes
to standard output, one JSON line a chunk.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK_ANSWERS = 4096
"""Answers between two reports; at the end of each chunk slots stand empty."""


def main(spec_path: Path, out: Path) -> None:
    """Everything; what cannot be drawn raises."""
    from vllm import LLM, SamplingParams

    spec: dict[str, Any] = json.loads(spec_path.read_text(encoding="utf-8"))
    prompts, n = spec["prompts"], spec["n"]
    llm = LLM(
        model=spec["model"],
        dtype=spec["dtype"],
        max_model_len=spec["max_model_len"],
        max_num_seqs=spec["max_num_seqs"],
        seed=spec["seed"],  # one stream for all: a generator a request would double a step's time
        max_num_batched_tokens=16384,
        block_size=32,
        skip_tokenizer_init=True,
        disable_log_stats=True,
    )
    lengths = np.zeros((len(prompts), n), dtype=np.int32)
    ended = np.zeros((len(prompts), n), dtype=np.bool_)
    tokens: list[int] = []
    size = max(_CHUNK_ANSWERS // n, 1)
    for begin in range(0, len(prompts), size):
        chunk = range(begin, min(begin + size, len(prompts)))
        outputs = llm.generate(
            [{"prompt_token_ids": prompts[i]} for i in chunk],
            [
                SamplingParams(
                    n=n,
                    temperature=1.0,
                    max_tokens=spec["max_tokens"][i],
                    stop_token_ids=spec["stop_token_ids"],
                    detokenize=False,
                )
                for i in chunk
            ],
            use_tqdm=False,
        )
        for i, output in zip(chunk, outputs, strict=True):
            for j, answer in enumerate(output.outputs):
                lengths[i, j] = len(answer.token_ids)
                ended[i, j] = answer.finish_reason == "stop"
                if spec["keep_tokens"]:
                    tokens.extend(answer.token_ids)
        sys.stdout.write(json.dumps({"done": chunk.stop}) + "\n")
        sys.stdout.flush()
    np.savez(out, lengths=lengths, ended=ended, tokens=np.asarray(tokens, dtype=np.int32))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
