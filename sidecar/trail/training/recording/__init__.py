"""Recordings of a model's hidden states on disk, to train and judge predictors on.

    recording.json        format version, settings, and which requests each shard holds
    prompts.jsonl         a prompt a line: `prompt_token_ids` and, where the data names it, `kind`; never text
    shard-00000/
        requests.npy      REQUEST_DTYPE [n]
        rows.npy          ROW_DTYPE [rows]: request within the shard and age, ascending
        layer-004.npy     vectors [rows, H] of hidden_states[4], in the model's own dtype (bfloat16 as uint16)
        shard.json        sha256 and size of every file beside it

A shard is put in place whole, and which requests it holds is settled before anything runs: a recording that
was interrupted goes on with the shards that are missing.
"""

from trail.training.recording.layout import RecordingError
from trail.training.recording.reader import RecordedRequests, Recording
from trail.training.recording.settings import RecordingSettings
from trail.training.recording.store import RecordingStore

__all__ = ["RecordedRequests", "Recording", "RecordingError", "RecordingSettings", "RecordingStore"]
