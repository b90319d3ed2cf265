"""What the board says of open requests."""

import numpy as np
import numpy.typing as npt

from trail.policy.gittins import gittins_index
from trail.policy.sizes import rank_requests
from trail.policy.spec import PolicySpec
from trail.predict.online import corrected
from trail.sidecar.loop.prediction import Predictor
from trail.sidecar.quality.monitor import Basis
from trail.sidecar.requests.tracker import RequestTracker, Source
from trail.wire.board import BOARD_ROW


def board_rows(
    spec: PolicySpec,
    tracker: RequestTracker,
    slots: npt.NDArray[np.int64],
    gittins: npt.NDArray[np.float64] | None = None,
    basis: Basis = Basis.PROBE,
) -> npt.NDArray[np.void]:
    """Board rows [n] of BOARD_ROW for `slots` [n] under `spec`, with their Gittins indices [n] if it asks.

    A free slot, and a request of which nothing is known that the policy could rank by, has an empty row
    (key 0): the engine ranks it by the mean of initial predictions. With Basis.PROMPT nothing that the probe
    said is used.
    """
    rows = np.zeros(len(slots), dtype=BOARD_ROW)
    initial, remaining = tracker.initial[slots], tracker.remaining[slots]
    exact, age = tracker.exact[slots], tracker.age[slots]
    if basis is Basis.PROMPT:
        remaining, gittins = np.maximum(initial - age, 0.0), None
    ranks = rank_requests(
        spec,
        initial=initial,
        remaining=remaining,
        exact=exact,
        age=age,
        prompt_tokens=tracker.prompt_tokens[slots],
        gittins=gittins,
    )
    source = tracker.source[slots]
    known = source >= Source.PROMPT if basis is Basis.PROMPT else source != Source.NONE
    if spec.name == "oracle":
        known |= exact > 0
    elif spec.name == "mlfq":
        known = tracker.key[slots] != 0
    rows["key"] = np.where(known, tracker.key[slots], 0)
    for name, values in (
        ("rank", ranks.rank),
        ("slope", ranks.slope),
        ("initial", initial),
        ("remaining", remaining),
        ("cutoff", ranks.cutoff),
        ("age", age),
    ):
        rows[name] = values
    rows[~known] = np.zeros((), dtype=BOARD_ROW)
    return rows


def gittins_of(
    spec: PolicySpec, tracker: RequestTracker, slots: npt.NDArray[np.int64], predictor: Predictor | None
) -> npt.NDArray[np.float64] | None:
    """Gittins indices [n] of what is believed of the requests in `slots` [n], NaN where nothing is.

    None where the policy does not ask for them.
    """
    if spec.size != "gittins" or predictor is None:
        return None
    refiner = predictor.refiner
    index = np.full(len(slots), np.nan)
    believed = np.flatnonzero(tracker.has_posterior[slots])
    if len(believed):
        chosen = slots[believed]
        distributions = corrected(refiner, tracker.posterior[chosen], predictor.correction)
        index[believed] = np.minimum(
            gittins_index(distributions, refiner.bins.edges) * predictor.correction.stretch,
            tracker.ceiling(chosen, tracker.age[chosen]),
        )
    return index
