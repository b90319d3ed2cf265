"""A small real sidecar for the scheduler's tests: it knows every output length and ranks by it.

Board and gRPC are the product's own. `python oracle_sidecar.py DIRECTORY POLICY LOG` runs it as a process,
which waits for a line on standard input before it begins and appends one JSON line an event to LOG.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from trail.policy.sizes import rank_requests
from trail.policy.spec import PolicySpec, parse_policy
from trail.wire.board import BOARD_ROW, BoardHeader, BoardWriter
from trail.wire.names import board_path, socket_path
from trail.wire.v1 import trail_pb2, trail_pb2_grpc


class OracleSidecar(trail_pb2_grpc.LifecycleServicer):
    """Answers the lifecycle stream and keeps the board of engine 0 up to date.

    The initial prediction of a request is `predict(request)`, its exact length unless told otherwise; a
    request that is sent again keeps the prediction it brings.
    """

    def __init__(
        self,
        directory: Path,
        policy: PolicySpec,
        log: Callable[[dict[str, Any]], None] = lambda event: None,
        predict: Callable[[Any], float] = lambda request: float(request.exact_output_tokens),
        epoch: int = 1,
        capacity: int = 4096,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.epoch = epoch
        self.policy = policy
        self.predict = predict
        self.log = log
        self.lock = threading.Lock()
        self.open: dict[int, Any] = {}
        self.predictions: dict[int, float] = {}
        self.started: list[Any] = []
        self.finished: list[Any] = []
        self.hellos: list[Any] = []
        self.load: Any = None
        self.generation = 0
        self.stopping = threading.Event()
        self.board = BoardWriter.create(board_path(directory, 0), capacity)
        self.publish([])
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        trail_pb2_grpc.add_LifecycleServicer_to_server(self, self.server)
        path = socket_path(directory)
        path.unlink(missing_ok=True)
        self.server.add_insecure_port(f"unix:{path}")
        self.server.start()
        self.beating = threading.Thread(target=self._beat, daemon=True)
        self.beating.start()

    def _beat(self) -> None:
        while not self.stopping.wait(0.01):
            self.board.beat()

    def Report(self, request_iterator: Iterator[Any], context: Any) -> Any:  # noqa: N802 - gRPC's name
        for message in request_iterator:
            with self.lock:
                if message.HasField("hello"):
                    self.hellos.append(message.hello)
                    self.open.clear()
                    self.log({"event": "hello", "model": message.hello.model})
                if message.HasField("load"):
                    self.load = message.load
                    self.log({"event": "load", "fallback": message.load.fallback_steps_total})
                for request in message.started:
                    self.open[request.key] = request
                    self.started.append(request)
                    r = request.initial_prediction or self.predict(request)
                    self.predictions[request.key] = r
                    self.log(
                        {
                            "event": "started",
                            "id": request.request_id,
                            "age": request.age,
                            "initial": request.initial_prediction,
                            "exact": request.exact_output_tokens,
                            "prompt": len(request.prompt_token_ids),
                        }
                    )
                for request in message.finished:
                    self.open.pop(request.key, None)
                    self.finished.append(request)
                    self.log({"event": "finished", "tokens": request.output_tokens})
                if message.started:
                    self.publish(list(message.started))
        return trail_pb2.ReportEnd()

    def publish(self, requests: list[Any]) -> None:
        initial = np.array([self.predictions[request.key] for request in requests], dtype=np.float64)
        age = np.array([request.age for request in requests], dtype=np.float64)
        exact = np.array([request.exact_output_tokens for request in requests], dtype=np.float64)
        ranks = rank_requests(
            self.policy, initial=initial, remaining=np.maximum(initial - age, 0), exact=exact, age=age
        )
        rows = np.zeros(len(requests), dtype=BOARD_ROW)
        rows["key"] = [request.key for request in requests]
        rows["rank"], rows["slope"], rows["cutoff"] = ranks.rank, ranks.slope, ranks.cutoff
        rows["initial"], rows["remaining"], rows["age"] = initial, np.maximum(initial - age, 0), age
        slots = np.array([request.slot for request in requests], dtype=np.int64)
        mean = float(np.mean(list(self.predictions.values()))) if self.predictions else 50.0
        self.board.publish(
            slots,
            rows,
            BoardHeader(
                epoch=self.epoch,
                heartbeat_ns=time.monotonic_ns(),
                generation=self.generation,
                order=self.policy.orders,
                preempt=self.policy.preempts,
                c=self.policy.c,
                mean_initial=mean,
                kv_reserve_tokens=self.policy.kv_reserve_tokens,
            ),
        )

    def set_policy(self, policy: PolicySpec) -> None:
        with self.lock:
            self.policy = policy
            self.generation += 1
            self.publish(list(self.open.values()))

    def stop(self) -> None:
        self.stopping.set()
        self.beating.join()
        self.server.stop(grace=0.2).wait()
        self.board.close(unlink=True)


def main(directory: Path, policy: str, log: Path) -> None:
    print("loaded", flush=True)
    sys.stdin.readline()
    with log.open("a", buffering=1) as out:
        OracleSidecar(directory, parse_policy(policy), lambda event: print(json.dumps(event), file=out))
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
