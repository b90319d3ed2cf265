"""The simulated engine's limits, checked once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineConfig:
    """What vLLM is started with, as far as its scheduler is concerned.

    `slots` is max_num_seqs, `token_budget` max_num_batched_tokens, `kv_blocks` the usable KV blocks of
    `block_tokens` tokens each (None: more than could ever be used). `prefix_cache` keeps a preempted
    request's full blocks until they are needed (enable_prefix_caching); requests share nothing with each
    other. `whole_prompt_must_fit` starts a request only where all its known tokens fit in free blocks
    (scheduler_reserve_full_isl, vLLM's default).

    `async_scheduling`: a step is put together while the one before it runs, so that it sees neither its
    arrivals nor its ends. `prediction_lag` is the number of further steps until the board shows a prediction
    made from a step's hidden states, `initial_lag` the number of steps from an arrival until the board shows
    what is predicted of the request; until then it ranks by the mean of the initial predictions that the
    board shows, as in the engine. `jumps` takes steps in which nothing can change together; results are
    the same without.

    Raises ValueError for limits that no engine could run with.
    """

    slots: int = 256
    token_budget: int = 8192
    kv_blocks: int | None = None
    block_tokens: int = 16
    prefix_cache: bool = True
    chunked_prefill: bool = True
    whole_prompt_must_fit: bool = True
    async_scheduling: bool = False
    prediction_lag: int = 0
    initial_lag: int = 0
    jumps: bool = True

    def __post_init__(self) -> None:
        for name in ("slots", "token_budget", "block_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.kv_blocks is not None and self.kv_blocks < 1:
            raise ValueError(f"kv_blocks must be at least 1, got {self.kv_blocks}; leave it out for no limit")
        for name in ("prediction_lag", "initial_lag"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
