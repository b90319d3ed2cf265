"""Where each request's hidden states lie in one step's batch, for vLLM's V1 and V2 model runners."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Batch:
    """One step as the model runner laid it out; n requests.

    `starts` int [n+1]: row of each request's first token in the hidden states, then the total.
    `computed` int [n]: tokens of each request computed before this step.
    Arrays are views into the runner's own buffers and valid until its next step.
    """

    req_ids: list[str]
    starts: npt.NDArray[np.int32]
    computed: npt.NDArray[np.int32]


def batch_of(runner: Any) -> Batch | None:
    """The batch between `execute_model` and `sample_tokens`; None when the step ran no model.

    The V2 runner keeps the batch in `execute_model_state` (vllm/v1/worker/gpu/model_runner.py), the V1 runner
    in itself (vllm/v1/worker/gpu_model_runner.py).
    """
    state = runner.execute_model_state
    if state is None:
        return None
    v2 = getattr(state, "input_batch", None)
    if v2 is not None:
        n = v2.num_reqs
        return Batch(v2.req_ids, v2.query_start_loc_np[: n + 1], v2.num_computed_tokens_np[:n])
    v1 = runner.input_batch
    n = v1.num_reqs
    return Batch(v1.req_ids, runner.query_start_loc.np[: n + 1], v1.num_computed_tokens_cpu[:n])
