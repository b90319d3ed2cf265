"""Numbers of a snapshot as `trail top` shows them: engines, prediction quality, requests."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_WHOLE = ("stop", "length")
_PREFIXES = ("chatcmpl-", "cmpl-")


@dataclass(frozen=True)
class Accuracy:
    """Predictions against what came, over requests that ended. Tokens; NaN where nothing was predicted.

    `initial_mae` and `refined_mae` are mean absolute errors of whole lengths, `bias` the mean of predicted
    less actual, `mean_tokens` the mean length.
    """

    requests: int
    initial_mae: float
    refined_mae: float
    bias: float
    mean_tokens: float


def quality(ended: Iterable[Any]) -> Accuracy:
    """How good the predictions of `ended` lives (`trail.v1.RequestLife`) were; aborted ones do not count."""
    lives = [life for life in ended if life.finish_reason in _WHOLE and life.HasField("initial_prediction")]
    off = [life.initial_prediction - life.age for life in lives]
    refined = [life.refined_mae for life in lives if life.HasField("refined_mae")]
    return Accuracy(
        requests=len(lives),
        initial_mae=_mean([abs(error) for error in off]),
        refined_mae=_mean(refined),
        bias=_mean(off),
        mean_tokens=_mean([life.age for life in lives]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def predicted_length(life: Any) -> float:
    """The length that is expected of an open request, in tokens; NaN without a prediction."""
    if not life.HasField("predicted_remaining"):
        return math.nan
    return float(life.age + life.predicted_remaining)


def running_first(lives: Iterable[Any]) -> list[Any]:
    """Running lives, those that give way first in front: unprotected ones with the most left."""
    return sorted(lives, key=lambda life: (life.protected, -_left(life)))


def _left(life: Any) -> float:
    return float(life.predicted_remaining) if life.HasField("predicted_remaining") else 0.0


def short_id(request_id: str, width: int) -> str:
    """A request's id within `width` characters: without vLLM's prefix, its middle left out where it is long.

    Clients may name their requests; whatever cannot be printed is shown as a question mark.
    """
    for prefix in _PREFIXES:
        if request_id.startswith(prefix):
            request_id = request_id[len(prefix) :]
            break
    text = "".join(c if c.isprintable() else "?" for c in request_id)
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def seconds(value: float) -> str:
    """`0.42`, `12.3`, `4 min`; `-` for NaN."""
    if math.isnan(value):
        return "-"
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value / 60:.0f} min"


def tokens(value: float) -> str:
    """A number of tokens in at most five characters; `-` for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if value < 99_999.5 else f"{value / 1000:.0f}k"
