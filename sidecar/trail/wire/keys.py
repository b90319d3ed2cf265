"""The 64-bit name that a request has in shared memory."""

from hashlib import blake2b


def request_key(request_id: str) -> int:
    """64-bit BLAKE2b of the request id, never 0 (0 marks an empty board row)."""
    # Ids come from clients: a lone surrogate must not raise inside the engine.
    digest = blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1
