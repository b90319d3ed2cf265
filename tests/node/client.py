"""A user's client, to be run where the cluster's services are reached: prints what each request met, as JSON.

Standard library only. Requests are streamed: `gaps_s` are the times between a request's tokens, `first_s` the
time to its first.
"""

import argparse
import http.client
import json
import random
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROMPTS = (
    "copy twelve blue stones",
    "count to",
    "a b c d e f g",
    "what is the longest word",
    "tell",
    "once more",
)


class NotAnsweredError(Exception):
    """A request was not answered wholly; the message says how."""


def ask(url: str, prompt: str, max_tokens: int, trace: str = "") -> dict[str, Any]:
    """One request; `error` is '' where it was answered wholly."""
    found: dict[str, Any] = {
        "prompt": prompt,
        "text": "",
        "id": "",
        "gaps_s": [],
        "first_s": None,
        "error": "",
    }
    body = {"model": "demo", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    headers = {"Content-Type": "application/json", **({"traceparent": trace} if trace else {})}
    found["began_s"], began_s = time.time(), time.monotonic()
    try:
        last_s = began_s
        for event in events(url, json.dumps(body), headers):
            now_s = time.monotonic()
            found["id"] = event["id"]
            found["text"] += event["choices"][0]["text"]
            if found["first_s"] is None:
                found["first_s"] = now_s - began_s
            else:
                found["gaps_s"].append(now_s - last_s)
            last_s = now_s
    except (NotAnsweredError, OSError, http.client.HTTPException, ValueError, KeyError) as error:
        found["error"] = f"{type(error).__name__}: {error}"
    found["took_s"] = time.monotonic() - began_s
    return found


def events(url: str, body: str, headers: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What is streamed, to its end. Raises NotAnsweredError where that does not come."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    connection.request("POST", "/v1/completions", body, headers)
    answer = connection.getresponse()
    if answer.status != 200:
        raise NotAnsweredError(f"{answer.status}: {answer.read(300)!r}")
    for line in answer:
        word = line.decode().strip().removeprefix("data: ")
        if word == "[DONE]":
            return
        if word:
            event = json.loads(word)
            if "error" in event:
                raise NotAnsweredError(str(event["error"]))
            yield event
    raise NotAnsweredError("the answer ended before its end")


def main() -> int:
    """0 where every request was answered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=0.0, help="go on for so long; 0: each prompt once")
    parser.add_argument("--together", type=int, default=1, help="requests at a time")
    parser.add_argument("--max-tokens", type=int, default=40)
    parser.add_argument("--traceparent", default="")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two requests of one client")
    parser.add_argument("--out", type=Path, default=None, help="file instead of standard output")
    parser.add_argument("--until", type=Path, default=None, help="end when this file is there")
    args = parser.parse_args()
    results: list[dict[str, Any]] = []
    end_s = time.monotonic() + args.seconds

    def work(number: int) -> None:
        chance = random.Random(number)
        for count in range(1_000_000):
            prompt = PROMPTS[(count + number) % len(PROMPTS)]
            if args.seconds:
                prompt += " " + "".join(chance.choice("abcdefgh ") for _ in range(chance.randrange(20)))
            results.append(ask(args.url, prompt, args.max_tokens, args.traceparent))
            time.sleep(args.pause)
            over = args.until is not None and args.until.exists()
            if over or (time.monotonic() >= end_s if args.seconds else count + 1 >= len(PROMPTS)):
                return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(args.together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = json.dumps(results)
    if args.out is None:
        print(text)
    else:
        part = args.out.with_suffix("." + secrets.token_hex(4))
        part.write_text(text)
        part.replace(args.out)
    return 0 if all(not result["error"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
