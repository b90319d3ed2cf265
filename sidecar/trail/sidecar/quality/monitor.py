"""The judging of predictions beside the loop: what ended goes to a thread, what it found comes back.

The loop hands finished requests over (`feed`) and reads two attributes; everything else happens in a thread
that sleeps while nothing ends.
"""

import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trail.policy.spec import PolicySpec
from trail.predict.online import NO_CORRECTION, Correction
from trail.predict.quality import TRUSTED, EndedRequest, Quality, QualitySnapshot, Standing, Verdict
from trail.sidecar.logs import get_logger
from trail.sidecar.pacing import SHARED_CORES, Pacing
from trail.wire.log_lines import RateLimited

WAITING = 4096
"""Finished requests that wait to be judged; the newest displace the oldest."""
AT_ONCE = 32
"""Requests that are judged at one look: the end of a burst must not take the core from the heartbeat."""
_PREDICTING = frozenset({"trail", "adaptive", "trail-prompt", "sjf"})

log = get_logger()


class Basis(enum.Enum):
    """What requests are ranked by."""

    PROBE = "probe"
    """Whatever the policy asks for, first of all the probe."""
    PROMPT = "prompt"
    """The prompt predictor's length, counted down."""
    ARRIVAL = "arrival"
    """Nothing that is predicted: first come, first served."""


@dataclass(frozen=True)
class Findings:
    """What the loop goes by."""

    standing: Standing = TRUSTED
    correction: Correction = NO_CORRECTION


class QualityMonitor:
    """Takes what ended, and holds what was found of it.

    With `acts` unset everything is judged and said, and nothing follows from it. Without `quality`, where
    there is no predictor, nothing is judged. `has_prompt` says whether the artefact has a prompt predictor.
    """

    def __init__(
        self,
        quality: Quality | None,
        pacing: Pacing = SHARED_CORES,
        *,
        has_prompt: bool = False,
        acts: bool = True,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.findings = Findings()
        self.snapshot = QualitySnapshot() if quality is None else quality.snapshot()
        self._quality = quality
        self._pacing = pacing
        self._has_prompt = has_prompt
        self._acts = acts
        self._on_failure = on_failure
        self._requests: deque[EndedRequest] = deque(maxlen=WAITING)
        self._some = threading.Event()
        self._stop = threading.Event()
        self._limited = RateLimited()
        self._thread = threading.Thread(target=self._run, name="trail-quality", daemon=True)

    def take(self, requests: Sequence[EndedRequest]) -> None:
        """Takes finished requests, in the order in which they arrived."""
        if requests and self._quality is not None:
            self._requests.extend(requests)
            self._some.set()

    def basis(self, spec: PolicySpec, standing: Standing) -> Basis:
        """What requests are ranked by under `spec`, given whom to trust."""
        if standing.probe or spec.name not in _PREDICTING:
            return Basis.PROBE
        return Basis.PROMPT if standing.prompt and self._has_prompt else Basis.ARRIVAL

    def start(self) -> None:
        """Starts judging."""
        if self._quality is not None:
            self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ends the thread after what it is doing."""
        self._stop.set()
        self._some.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def look(self) -> None:
        """Judges the oldest of what has ended since the last look, AT_ONCE at most."""
        if self._quality is None:
            return
        requests: list[EndedRequest] = []
        while self._requests and len(requests) < AT_ONCE:
            requests.append(self._requests.popleft())
        for verdict in self._quality.take(requests):
            self._say(verdict)
        self.snapshot = self._quality.snapshot()
        if self._acts:
            self.findings = Findings(self.snapshot.standing, self.snapshot.correction)

    def _run(self) -> None:
        while True:
            self._some.wait()
            if self._stop.is_set():
                return
            self._some.clear()
            began_s = time.thread_time()
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - predictions go on as they are
                self._failed(error)
            if self._requests:
                self._some.set()
            rest_s = self._pacing.quality_rest * (time.thread_time() - began_s)
            self._stop.wait(max(rest_s, self._pacing.quality_rest_least_s))

    def _failed(self, error: Exception) -> None:
        self._on_failure()
        if self._limited.admit(type(error).__name__) is not None:
            log.error("quality: %r; requests are ranked as before", error)

    def _say(self, verdict: Verdict) -> None:
        errors = verdict.errors
        measured = (
            f"mean error of the last requests in tokens: probe {errors.probe:.1f}, prompt"
            f" {errors.prompt:.1f}, constant {errors.constant:.1f}"
        )
        if verdict.trusted:
            log.info("the %s is better again and is used (%s)", _SUBJECT[verdict.subject], measured)
            return
        follows = "" if self._acts else "; nothing follows, because --quality is watch"
        log.warning(
            "after %d requests the %s is worse than nothing: %s until it is better again (%s)%s",
            verdict.finished, _SUBJECT[verdict.subject], self._instead(verdict), measured, follows,
        )  # fmt: skip

    def _instead(self, verdict: Verdict) -> str:
        if verdict.subject == "prompt":
            return "its lengths are not used"
        standing = self._quality.standing if self._quality is not None else TRUSTED
        by_prompt = standing.prompt and self._has_prompt
        return f"requests are ranked by {'their prompts' if by_prompt else 'arrival'}"


_SUBJECT = {"probe": "probe", "prompt": "prompt predictor"}
