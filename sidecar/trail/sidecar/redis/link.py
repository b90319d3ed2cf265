"""The sidecar's link to Redis: tells the operator how pressed its engines are, and follows c.

A thread of its own does all of it, and nothing else in the process waits for it. Without Redis the last c
stays in force. The hash of c is the truth; a published message only says that it is time to read it, and it
is read every few seconds anyway.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.backoff import NoBackoff
from redis.retry import Retry

from trail.sidecar.logs import get_logger
from trail.sidecar.pacing import SHARED_CORES, Pacing
from trail.sidecar.redis.config import RedisConfig
from trail.wire.backoff import Backoff
from trail.wire.log_lines import RateLimited
from trail.wire.redis_schema import (
    EXPIRY_INTERVALS,
    HISTORY_LENGTH,
    REPORT_SCRIPT,
    ControlRecord,
    Keys,
    PodReport,
    Rejected,
    decode_control,
    encode_report,
)

TIMEOUT_S = 2.0
"""Longest that a call of Redis may take."""

log = get_logger()


@dataclass
class LinkCounters:
    """What has come of the link so far. Written by its thread, read by any."""

    reports: int = 0
    failures: int = 0
    applied: int = 0
    stale: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    connected: bool = False


class RedisLink:
    """Reports and follows from `start` to `stop`.

    `report` is asked for a report, and `sample` a few times in between, as often as `pacing` says; `apply` is
    given each c that is newer than the last, in the link's thread.
    """

    def __init__(
        self,
        config: RedisConfig,
        pacing: Pacing = SHARED_CORES,
        *,
        report: Callable[[], PodReport],
        apply: Callable[[ControlRecord], None],
        sample: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self._pacing = pacing
        self.counters = LinkCounters()
        self.generation = 0
        self._report = report
        self._sample = sample
        self._apply = apply
        self._keys = Keys(config.workload)
        self._limited = RateLimited()
        self._random = random.Random()  # noqa: S311 - spreads reconnections
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trail-redis", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, wait_s: float = 1.0) -> None:
        """Ends the thread, waiting for it at most `wait_s`."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def follow(self, raw: dict[bytes, bytes]) -> None:
        """Takes what the hash of c holds: applied where it is newer, left where it is old or rubbish."""
        if not raw:
            return
        record = decode_control(raw)
        if isinstance(record, Rejected):
            self.counters.rejected[record.field] = self.counters.rejected.get(record.field, 0) + 1
            self._say("c", f"c in Redis is not taken: {record}; the last one stays in force")
        elif record.generation < self.generation:
            self.counters.stale += 1
        elif record.generation > self.generation:
            self._apply(record)
            self.generation = record.generation
            self.counters.applied += 1
            log.info("c is %g: %s", record.c, record.reason)

    def _run(self) -> None:
        retries = Backoff(self._pacing.redis_retry_first_s, self._pacing.redis_retry_most_s)
        pause_s = retries.first_s
        while not self._stop.is_set():
            before = self.counters.reports
            try:
                self._session()
            except Exception as error:  # noqa: BLE001 - nothing that Redis does may end the thread
                self.counters.failures += 1
                self._say("session", f"Redis at {self.config.place}: {error}; c stays, trying again")
            self.counters.connected = False
            pause_s = retries.first_s if self.counters.reports > before else retries.after(pause_s)
            self._rest(pause_s * self._random.uniform(0.5, 1.0))

    def _rest(self, pause_s: float) -> None:
        """Waits, and goes on sampling: the pressure of that time is reported afterwards."""
        end_s = time.monotonic() + pause_s
        while not self._stop.is_set() and (left_s := end_s - time.monotonic()) > 0:
            self._guarded(self._sample)
            self._stop.wait(min(left_s, self._pacing.redis_sample_every_s))

    def _session(self) -> None:
        """One connection, until it breaks or the link is stopped. Raises what the client raises."""
        client = redis.Redis.from_url(
            self.config.url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),  # a broken connection ends the session, and c is read anew
        )
        with client, client.pubsub() as hints:  # type: ignore[no-untyped-call]
            write = client.register_script(REPORT_SCRIPT)
            hints.subscribe(self._keys.hint)
            self._read(client)
            read_s, reported_s = time.monotonic(), -float("inf")
            while not self._stop.is_set():
                now_s = time.monotonic()
                if now_s - reported_s >= self._pacing.redis_report_every_s:
                    self._guarded(lambda: self._write(write))
                    reported_s = now_s
                    self.counters.connected = True
                hint = hints.get_message(timeout=self._pacing.redis_sample_every_s)
                self._guarded(self._sample)
                # The answer to the subscription counts as a hint: c may have changed before it.
                if hint is not None or now_s - read_s >= self._pacing.redis_reread_every_s:
                    self._read(client)
                    read_s = now_s

    def _read(self, client: Any) -> None:
        raw = client.hgetall(self._keys.c)
        self._guarded(lambda: self.follow(raw))

    def _write(self, script: Any) -> None:
        fields = encode_report(self._report())
        expiry_ms = int(1000 * EXPIRY_INTERVALS * self._pacing.redis_report_every_s)
        script(
            keys=[self._keys.pod(self.config.pod), self._keys.pods, self._keys.history],
            args=[self.config.pod, expiry_ms, HISTORY_LENGTH, *(x for pair in fields.items() for x in pair)],
        )
        self.counters.reports += 1

    def _guarded(self, call: Callable[[], None]) -> None:
        """Runs our own part; what is wrong there is no reason to drop the connection."""
        try:
            call()
        except (redis.RedisError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - one bad report must not end the link
            self.counters.failures += 1
            self._say(f"own {type(error).__name__}", f"{type(error).__name__}: {error}")

    def _say(self, cause: str, line: str) -> None:
        if self._limited.admit(cause) is not None:
            log.warning("%s", line)


class LinkCollector(Collector):
    """The link's counters as Prometheus metrics."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def describe(self) -> Iterable[Metric]:
        """Nothing to check for duplicates beforehand: the names below occur nowhere else."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, one after another."""
        counters = self._link.counters
        yield GaugeMetricFamily(
            "trail_redis_connected", "1 while Redis can be reached.", value=float(counters.connected)
        )
        yield GaugeMetricFamily(
            "trail_c_generation", "Generation of the operator's c in force; 0: none.",
            value=self._link.generation,
        )  # fmt: skip
        for name, text in (
            ("reports", "Reports of pressure written."),
            ("failures", "Failures of the link, each followed by another try."),
            ("applied", "Values of c taken."),
            ("stale", "Values of c left because they were older than the one in force."),
        ):
            yield CounterMetricFamily(f"trail_redis_{name}", text, value=getattr(counters, name))
        rejected = CounterMetricFamily(
            "trail_redis_rejected", "Values of c left because they could not be read.", labels=["field"]
        )
        for name, count in counters.rejected.copy().items():
            rejected.add_metric([name], count)
        yield rejected
