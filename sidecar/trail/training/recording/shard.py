"""One shard: written whole from a spool, read back with every check."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from trail.predict.manifest import FileRecord
from trail.predict.storage import replacing_directory, sha256_file
from trail.training.recording.layout import (
    REQUEST_DTYPE,
    REQUESTS_FILE,
    ROW_DTYPE,
    ROWS_FILE,
    SHARD_FILE,
    RecordingError,
    due_rows,
    layer_file,
    storage_dtype,
)
from trail.training.recording.settings import RecordingSettings, ShardPlan
from trail.training.recording.spool import Spool

_CHUNK_ROWS = 8192


@dataclass(frozen=True)
class Shard:
    """A shard that was read: `requests` [n] of REQUEST_DTYPE, mapped `vectors` [rows, H] by layer."""

    requests: npt.NDArray[np.void]
    vectors: Mapping[int, npt.NDArray[np.generic]]
    files: Mapping[str, FileRecord]


def planned_requests(settings: RecordingSettings, plan: ShardPlan) -> npt.NDArray[np.void]:
    """The shard's requests before their outcome is known: REQUEST_DTYPE [n]."""
    numbers = np.arange(plan.first, plan.first + plan.requests)
    requests = np.zeros(plan.requests, REQUEST_DTYPE)
    requests["prompt_index"] = numbers // settings.samples
    requests["sample"] = numbers % settings.samples
    return requests


def write_shard(
    path: Path, settings: RecordingSettings, requests: npt.NDArray[np.void], spool: Spool
) -> dict[str, FileRecord]:
    """Put the shard in place as `path`, rows in order of request and age; empties `spool` layer by layer.

    `requests` REQUEST_DTYPE [n] with their outcome. Raises RecordingError for a row that is missing or came
    twice.
    """
    request, age = due_rows(requests["output_tokens"], settings.every)
    rows = np.zeros(len(request), ROW_DTYPE)
    rows["request"], rows["age"] = request, age
    with replacing_directory(path) as made:
        files = {
            REQUESTS_FILE: _write_array(made / REQUESTS_FILE, requests),
            ROWS_FILE: _write_array(made / ROWS_FILE, rows),
        }
        for layer in settings.layers:
            order = spool.order(layer, requests["output_tokens"], settings.every)
            stored = spool.mapped(layer)
            files[layer_file(layer)] = _write_array(made / layer_file(layer), stored, order)
            spool.drop(layer)  # two copies of one layer at most lie on the disk
        entry = {name: asdict(record) for name, record in files.items()}
        (made / SHARD_FILE).write_text(json.dumps({"files": entry}, indent=1) + "\n", encoding="utf-8")
    return files


def read_shard(path: Path, settings: RecordingSettings, plan: ShardPlan, *, contents: bool) -> Shard:
    """The shard at `path`, checked against its plan; with `contents` the vectors' checksums as well.

    Raises RecordingError naming the shard.
    """
    try:
        return _read(path, settings, plan, contents=contents)
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause = f"the entry {error} is missing" if isinstance(error, KeyError) else str(error)
        raise RecordingError(
            f"{path} is damaged: {cause}; remove this shard and run the same trail profile command, which"
            " records it again"
        ) from error


def _read(path: Path, settings: RecordingSettings, plan: ShardPlan, *, contents: bool) -> Shard:
    entries = json.loads((path / SHARD_FILE).read_text(encoding="utf-8"))["files"]
    files = {name: FileRecord(str(e["sha256"]), int(e["bytes"])) for name, e in sorted(entries.items())}
    layers = {layer: layer_file(layer) for layer in settings.layers}
    if set(files) != {REQUESTS_FILE, ROWS_FILE, *layers.values()}:
        raise ValueError(f"{SHARD_FILE} names other files than the settings: {', '.join(files)}")
    for name, record in files.items():
        size = (path / name).stat().st_size
        if size != record.bytes:
            raise ValueError(f"{name} has {size} bytes, {record.bytes} were written")
        if (contents or name in (REQUESTS_FILE, ROWS_FILE)) and sha256_file(path / name) != record.sha256:
            raise ValueError(f"the content of {name} is not what was written (its checksum differs)")
    requests = np.load(path / REQUESTS_FILE, allow_pickle=False)
    planned = planned_requests(settings, plan)
    if requests.dtype != REQUEST_DTYPE or len(requests) != len(planned):
        raise ValueError(f"{REQUESTS_FILE} does not hold {len(planned)} requests")
    if any(np.any(requests[name] != planned[name]) for name in ("prompt_index", "sample")):
        raise ValueError(f"{REQUESTS_FILE} holds other requests than this shard's")
    if np.any(requests["output_tokens"] < 1):
        raise ValueError(f"{REQUESTS_FILE} holds a request without output")
    request, age = due_rows(requests["output_tokens"], settings.every)
    rows = np.load(path / ROWS_FILE, allow_pickle=False)
    same = rows.dtype == ROW_DTYPE and len(rows) == len(age)
    if not same or np.any(rows["request"] != request) or np.any(rows["age"] != age):
        raise ValueError(f"{ROWS_FILE} does not hold every row of its requests in order")
    shape, dtype = (len(age), settings.model.hidden_size), storage_dtype(settings.dtype)
    vectors = {}
    for layer, name in layers.items():
        mapped = np.load(path / name, mmap_mode="r", allow_pickle=False)
        if mapped.shape != shape or mapped.dtype != dtype:
            raise ValueError(f"{name} holds {mapped.dtype} {mapped.shape}, expected {dtype} {shape}")
        vectors[layer] = mapped
    return Shard(requests, vectors, files)


class _HashedFile:
    """A file that counts and hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._bytes = 0

    def write(self, data: Any) -> None:
        """Write a bytes-like object."""
        self._file.write(data)
        self._hash.update(data)
        self._bytes += len(data)

    def record(self) -> FileRecord:
        """What was written."""
        return FileRecord(self._hash.hexdigest(), self._bytes)


def _write_array(
    path: Path, array: npt.NDArray[Any], order: npt.NDArray[np.int64] | None = None
) -> FileRecord:
    """Write `array`, or its rows in `order`, as .npy without holding all of it."""
    count = len(array) if order is None else len(order)
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),  # type: ignore[no-untyped-call]  # NumPy's own
        "fortran_order": False,
        "shape": (count, *array.shape[1:]),
    }
    with path.open("wb") as opened:
        file = _HashedFile(opened)
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]  # NumPy's own
        for begin in range(0, count, _CHUNK_ROWS):
            end = min(begin + _CHUNK_ROWS, count)
            file.write((array[begin:end] if order is None else array[order[begin:end]]).tobytes())
    return file.record()
