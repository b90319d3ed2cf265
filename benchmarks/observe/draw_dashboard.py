"""Draws charts/trail/dashboards/trail.json without Grafana: `python -m benchmarks.observe.draw_dashboard`.

A real Prometheus answers every panel's queries, from samples of a real sidecar's registry, which an invented
engine fills: eight slots, answers of 4 to 60 tokens, a peak in the middle. The picture shows what the panels
ask for and how they lie, and nothing of how any engine does. Written to docs/dashboard.png.
"""

import json
import re
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("sidecar/telemetry", "sidecar")]

import matplotlib as mpl  # noqa: E402

mpl.use("agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from metrics_kit import Served, sidecar_registry  # noqa: E402

from benchmarks.observe.prometheus import Prometheus, backfill, fill_in, samples  # noqa: E402
from trail.policy.spec import PolicySpec  # noqa: E402
from trail.wire.changes import Cause  # noqa: E402
from trail.wire.lifecycle import Change  # noqa: E402
from trail_operator.metrics import Metrics as OperatorMetrics  # noqa: E402

DASHBOARD = ROOT / "charts" / "trail" / "dashboards" / "trail.json"
PICTURE = ROOT / "docs" / "dashboard.png"
SLOTS = 8
TOKENS_A_TICK = 4
TICKS = 60
EVERY = 3
"""Ticks of a second between two scrapes."""
START_S = 1_000_000
"""When the story begins; no clock of this machine."""
INK, FAINT, PAPER = "#1f2933", "#7b8794", "#ffffff"


class Story:
    """An engine that serves requests shortest first, a tick a second, and tells the sidecar."""

    def __init__(self, directory: Path) -> None:
        self.served = Served(directory, PolicySpec("trail", 0.8))
        self.operator = OperatorMetrics()
        self.random = np.random.default_rng(7)
        self.waiting: dict[int, tuple[float, int]] = {}  # slot: arrival, length
        self.running: dict[int, list[float]] = {}  # slot: arrival, length, admitted, age, waited
        self.steps = self.preemptions = self.recomputed = 0

    def tick(self, now_s: float) -> None:
        """One second."""
        peak = 3.0 if TICKS / 3 < now_s < 2 * TICKS / 3 else 1.2
        for _ in range(self.random.poisson(peak)):
            self._arrive(now_s)
        self._preempt(now_s)
        self._admit(now_s)
        self._generate(now_s)
        self.steps += TOKENS_A_TICK
        self.served.load(
            waiting=len(self.waiting), running=len(self.running), steps_total=self.steps,
            kv_usage=min(len(self.running) / SLOTS, 1.0) * 0.9, preemptions_total=self.preemptions,
            policy_preemptions_total=self.preemptions, recomputed_tokens_total=self.recomputed,
        )  # fmt: skip
        self.served.monitor.look()
        self._operate(now_s)

    def _arrive(self, now_s: float) -> None:
        free = next((s for s in range(1, 16) if s not in self.waiting and s not in self.running), None)
        if free is None:
            return
        length = int(np.clip(self.random.lognormal(2.7, 0.7), 4, 60))
        self.waiting[free] = (now_s, length)
        self.served.arrive(free, now_s, float(np.clip(length * self.random.lognormal(0, 0.3), 2, 63)))

    def _preempt(self, now_s: float) -> None:
        if len(self.running) < SLOTS - 2 or not self.waiting:
            return
        shortest = min(length for _, length in self.waiting.values())
        slot = max(self.running, key=lambda s: self.running[s][1] - self.running[s][3])
        arrival, length, _, age, _ = self.running[slot]
        if age < 0.8 * length and length - age > 2 * shortest:
            self.served.change(slot, Change.PREEMPTED, now_s, age=int(age), cause=Cause.SLOT)
            self.preemptions += 1
            self.recomputed += int(age)
            del self.running[slot]
            self.waiting[slot] = (arrival, int(length))
        else:
            self.served.change(slot, Change.DENIED, now_s, cause=Cause.PROTECTED)

    def _admit(self, now_s: float) -> None:
        for slot in sorted(self.waiting, key=lambda s: self.waiting[s][1])[: SLOTS - len(self.running)]:
            arrival, length = self.waiting.pop(slot)
            self.served.change(slot, Change.ADMITTED, now_s)
            self.running[slot] = [arrival, length, now_s, 0, now_s - arrival]
            self.served.generate(slot, 0, length)

    def _generate(self, now_s: float) -> None:
        for slot, state in list(self.running.items()):
            state[3] = min(state[3] + TOKENS_A_TICK, state[1])
            arrival, length, admitted, age, waited = state
            if age < length:
                self.served.generate(slot, int(age), length - age)
                continue
            times = {"queued": arrival, "admitted": admitted, "waited": waited}
            first = admitted + 1 / TOKENS_A_TICK
            self.served.finish(slot, int(length), **times, first_token=first, ended=now_s + 0.9)
            del self.running[slot]

    def _operate(self, now_s: float) -> None:
        operator = self.operator
        operator.leader.set(1)
        operator.pods.labels("shop", "llama", "ordering").set(1)
        operator.c.labels("shop/deployment/llama").set(0.8)
        operator.c_changes.inc(0)
        operator.admissions.labels("injected", "").inc(now_s < 2)
        operator.admission_seconds.observe(0.002)


def play(directory: Path) -> list[str]:
    """Samples of the story, every few ticks, as lines for a Prometheus."""
    story = Story(directory)
    sidecar, operator = sidecar_registry(story.served), story.operator.registry
    lines: list[str] = []
    for tick in range(TICKS + 1):
        if tick:
            story.tick(float(tick))
        if tick % EVERY == 0:
            lines += samples(sidecar, START_S + tick, namespace="shop", pod="llama-0")
            lines += samples(operator, START_S + tick, namespace="trail-system", pod="trail-operator-0")
    story.served.close()
    return lines


def curves(target: dict[str, Any], prometheus: Prometheus) -> dict[str, dict[float, float]]:
    """Values of a panel's query by time in seconds, by legend."""
    query = fill_in(target["expr"], __rate_interval=f"{4 * EVERY}s")
    answer = prometheus.query_range(query, START_S + EVERY, START_S + TICKS, EVERY)
    return {
        _legend(target["legendFormat"], labels): {at - START_S: value for at, value in values.items()}
        for labels, values in answer
    }


def _legend(text: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), text).strip()


def draw(prometheus: Prometheus) -> None:
    """The whole dashboard, on Grafana's grid of 24 columns."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels)
    figure = plt.figure(figsize=(15, height * 0.27), facecolor=PAPER)
    for panel in panels:
        at = panel["gridPos"]
        left, bottom = at["x"] / 24, 1 - (at["y"] + at["h"]) / height
        if panel["type"] == "row":
            figure.text(0.01, bottom + 0.2 / height, panel["title"], size=13, weight="bold", color=INK)
            continue
        place = (left + 0.03, bottom + 1.9 / height, at["w"] / 24 - 0.045, (at["h"] - 3.3) / height)
        axes = figure.add_axes(place)
        axes.set_title(panel["title"], loc="left", size=9, color=INK)
        for target in panel["targets"]:
            for legend, values in curves(target, prometheus).items():
                label = textwrap.shorten(legend, 26, placeholder="...")
                axes.plot(list(values), list(values.values()), linewidth=1.3, label=label)
        _dress(axes, panel)
    figure.savefig(PICTURE, dpi=90)


def _dress(axes: Any, panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    if "min" in defaults:
        axes.set_ylim(bottom=defaults["min"], top=defaults.get("max"))
    if defaults["unit"] == "percentunit":
        axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
    axes.tick_params(labelsize=6, colors=FAINT, length=2)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
    axes.grid(axis="y", linewidth=0.3, color=FAINT, alpha=0.5)
    axes.set_ylabel({"s": "s", "ops": "1/s", "reqps": "1/s"}.get(defaults["unit"], ""), size=6, color=FAINT)
    if axes.lines:
        axes.legend(fontsize=6, frameon=False, ncol=4, loc="upper left", bbox_to_anchor=(-0.02, -0.12),
                    handlelength=1, columnspacing=1)  # fmt: skip


def main() -> None:
    """Plays, asks, draws."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        backfill(directory, play(directory))
        prometheus = Prometheus(directory)
        try:
            draw(prometheus)
        finally:
            prometheus.close()


if __name__ == "__main__":
    main()
