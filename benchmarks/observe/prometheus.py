"""A real Prometheus: scrapes what is served, reads samples of stated times, answers queries."""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

INSTALLED = all(shutil.which(program) for program in ("prometheus", "promtool"))
ADVICE = "prometheus and promtool are not on PATH: apt-get install prometheus"
VARIABLES = {"$namespace": ".*", "$pod": ".*", "$__rate_interval": "5m"}
"""What Grafana puts into the dashboard's queries, where nothing is chosen."""
_LISTENING = re.compile(r'msg="Listening on" address=(\S+)')
_PATIENCE_S = 120.0
_LOOK_S = 0.05

T = TypeVar("T")
Labels = dict[str, str]


class QueryError(ValueError):
    """A query that Prometheus refuses."""


def fill_in(query: str, **variables: str) -> str:
    """A dashboard's query with its variables replaced, by VARIABLES unless named."""
    for name, value in {**VARIABLES, **{f"${name}": value for name, value in variables.items()}}.items():
        query = query.replace(name, value)
    return query


def samples(registry: CollectorRegistry, at_s: float, **labels: str) -> Iterator[str]:
    """A registry's samples at a time, as lines of OpenMetrics, with more labels."""
    for family in registry.collect():
        for sample in family.samples:
            pairs = {**labels, **sample.labels}.items()
            text = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in pairs)
            yield f"{sample.name}{{{text}}} {sample.value} {at_s}"


def backfill(directory: Path, lines: Iterable[str]) -> None:
    """Puts lines of `samples`, in the order of their times, where a Prometheus of `directory` reads them."""
    text = directory / "samples.txt"
    text.write_text("\n".join([*lines, "# EOF\n"]), encoding="utf-8")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics"]
    subprocess.run([*command, text, directory / "data"], check=True, capture_output=True)


class Prometheus:
    """A server on loopback, from its making until `close`. `targets` by address, each with its labels.

    Raises RuntimeError where none is installed or it does not start.
    """

    def __init__(self, directory: Path, targets: Mapping[str, Labels] | None = None) -> None:
        if not INSTALLED:
            raise RuntimeError(ADVICE)
        self._targets = targets or {}
        config, self._log = directory / "prometheus.yml", directory / "prometheus.log"
        scraped = [{"targets": [address], "labels": labels} for address, labels in self._targets.items()]
        job = {"job_name": "trail", "scrape_interval": "1s", "static_configs": scraped}
        config.write_text(json.dumps({"scrape_configs": [job]}), encoding="utf-8")  # JSON is YAML
        command = [
            "prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}",
            "--web.listen-address=127.0.0.1:0", "--storage.tsdb.retention.time=10y",
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._address = self._wait(self._listening)
            self._wait(self._ready)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()

    def query(self, query: str, at_s: float) -> list[tuple[Labels, float]]:
        """Its answer at a time: labels and value of each series. Raises QueryError."""
        found = self._ask("query", query=query, time=at_s)
        return [(series["metric"], float(series["value"][1])) for series in found]

    def query_range(
        self, query: str, start_s: float, end_s: float, step_s: float
    ) -> list[tuple[Labels, dict[float, float]]]:
        """Its answers between two times: labels of each series, and values by time. Raises QueryError."""
        found = self._ask("query_range", query=query, start=start_s, end=end_s, step=step_s)
        return [(s["metric"], {float(at): float(value) for at, value in s["values"]}) for s in found]

    def scrape(self) -> float:
        """Waits until every target was scraped anew; returns a time at which that is in the answers."""
        after_s = time.time()

        def scraped() -> float:
            now_s = time.time()
            times = self.query("timestamp(up) * (up == 1)", now_s)
            return now_s if sum(at_s > after_s for _, at_s in times) == len(self._targets) else 0.0

        return self._wait(scraped)

    def _ask(self, what: str, **parameters: str | float) -> list[dict[str, Any]]:
        url = f"http://{self._address}/api/v1/{what}"
        body = urllib.parse.urlencode(parameters).encode()
        try:
            with urllib.request.urlopen(url, body) as answer:
                data = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(f"{parameters['query']}: {json.load(error)['error']}") from error
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found

    def _listening(self) -> str:
        found = _LISTENING.search(self._log.read_text(encoding="utf-8"))
        return found.group(1) if found else ""

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready"):
                return True
        except urllib.error.HTTPError:
            return False

    def _wait(self, look: Callable[[], T]) -> T:
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := look()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Prometheus does not answer: {self._log.read_text(encoding='utf-8')}")
            time.sleep(_LOOK_S)
        return found
