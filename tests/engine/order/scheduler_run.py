"""One vLLM engine that serves rounds of requests, as a process of its own.

Usage: scheduler_run.py ENGINE_ARGUMENTS.json. A line on standard input is one round: `requests`, each with
`prompt` (token ids), `tokens` (output length) and `after` (outputs received before it is sent). A line on
standard output answers it: `outputs` (token ids by request), `ended` (request numbers as they end) and, where
the engine core is in this process, `events` (what the scheduler did, with the state it did it in).
"""

import json
import sys
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams

from trail.wire.names import XARG_OUTPUT_TOKENS


def serve(engine: Any, requests: list[dict[str, Any]], prefix: str) -> dict[str, Any]:
    todo = list(enumerate(requests))
    outputs: dict[int, list[int]] = {}
    reasons: dict[int, str] = {}
    ended: list[int] = []
    received = 0
    while todo or engine.has_unfinished_requests():
        while todo and (todo[0][1]["after"] <= received or not engine.has_unfinished_requests()):
            number, request = todo.pop(0)
            params = SamplingParams(
                temperature=0.0,
                max_tokens=request["tokens"],
                ignore_eos=True,
                detokenize=False,
                extra_args={XARG_OUTPUT_TOKENS: request["tokens"]},
            )
            engine.add_request(f"{prefix}{number}", {"prompt_token_ids": request["prompt"]}, params)
        for output in engine.step():
            received += 1
            if output.finished:
                number = int(output.request_id.removeprefix(prefix))
                outputs[number] = list(output.outputs[0].token_ids)
                reasons[number] = output.outputs[0].finish_reason
                ended.append(number)
    return {"outputs": [outputs[i] for i in range(len(requests))], "ended": ended, "reasons": reasons}


def main(arguments: Path) -> None:
    llm = LLM(**json.loads(arguments.read_text()))
    replies = sys.stdout
    print("@ready", file=replies, flush=True)
    for number, line in enumerate(sys.stdin):
        reply = serve(llm.llm_engine, json.loads(line)["requests"], f"round{number}-")
        print("@" + json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
