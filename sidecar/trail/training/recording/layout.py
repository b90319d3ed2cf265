"""Names and dtypes of a recording's files, and which rows a request has."""

import numpy as np
import numpy.typing as npt

from trail.wire.ring import VECTOR_DTYPES

FORMAT_VERSION = 1

RECORDING_FILE = "recording.json"
PROMPTS_FILE = "prompts.jsonl"
SHARD_FILE = "shard.json"
REQUESTS_FILE = "requests.npy"
ROWS_FILE = "rows.npy"

REQUEST_DTYPE = np.dtype(
    [("prompt_index", "<u4"), ("sample", "<u4"), ("output_tokens", "<u4"), ("censored", "?")]
)
ROW_DTYPE = np.dtype([("request", "<u4"), ("age", "<u4")])


class RecordingError(Exception):
    """A recording that cannot be read or continued; one sentence says what is wrong, where, what to do."""


def shard_name(number: int) -> str:
    """Directory of a shard."""
    return f"shard-{number:05d}"


def layer_file(layer: int) -> str:
    """File of a layer's vectors within a shard."""
    return f"layer-{layer:03d}.npy"


def storage_dtype(dtype: str) -> np.dtype[np.generic]:
    """How vectors of the model's `dtype` (float32, float16, bfloat16) lie on disk."""
    return VECTOR_DTYPES[dtype].storage


def narrowed(vectors: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.generic]:
    """Vectors as they lie on disk. Exact for values that came from a model of that dtype."""
    if dtype == "bfloat16":
        return (np.ascontiguousarray(vectors).view(np.uint32) >> 16).astype(np.uint16)
    return vectors.astype(storage_dtype(dtype), copy=False)


def widened(stored: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Stored vectors as float32; uint16 holds bfloat16, which is the upper half of a float32."""
    if stored.dtype == np.uint16:
        bits = stored.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    return stored.astype(np.float32)


def row_counts(output_tokens: npt.NDArray[np.integer], every: int) -> npt.NDArray[np.int64]:
    """Rows of requests with `output_tokens` [n]: the prompt's, then every `every` tokens.

    The last generated token is never fed in, so the largest possible age is `output_tokens - 1`.
    """
    return 1 + (np.asarray(output_tokens, np.int64) - 1) // every


def due_rows(
    output_tokens: npt.NDArray[np.integer], every: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Request (its index in `output_tokens`) and age of every row there must be, in this order."""
    counts = row_counts(output_tokens, every)
    firsts = np.cumsum(counts) - counts
    within = np.arange(int(counts.sum())) - np.repeat(firsts, counts)
    return np.repeat(np.arange(len(counts)), counts), within * every
