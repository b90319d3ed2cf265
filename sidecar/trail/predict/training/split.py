"""Splitting training data by prompt, so that no prompt is both trained and judged on."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def held_out_prompts(
    prompts: Sequence[Sequence[int]], share: float = 0.1, seed: int = 0
) -> npt.NDArray[np.bool_]:
    """Which of n prompts (token ids) to keep out of training, bool [n].

    Decided by a hash of the tokens and the seed alone: equal prompts fall on the same side, in every
    data set and in any order. Expected share is `share`, in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"the held-out share must be in [0, 1), got {share}")
    limit = int(share * 2**64)
    salt = seed.to_bytes(8, "little", signed=True)
    return np.array([_hash(prompt, salt) < limit for prompt in prompts], dtype=np.bool_)


def _hash(prompt: Sequence[int], salt: bytes) -> int:
    tokens = np.asarray(prompt, dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(tokens, digest_size=8, salt=salt).digest(), "little")
