"""Fetches a predictor's archive over HTTP(S), checks its digest, and puts its contents in place by rename."""

import contextlib
import hashlib
import http.client
import lzma
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import IO

LARGEST_BYTES = 4 * 2**30
TIMEOUT_S = 60.0
_CHUNK = 1 << 20
_MANIFEST = "trail.json"


class FetchError(Exception):
    """The archive cannot be had or used; the message says why."""


def fetch_archive(url: str, sha256: str, into: Path) -> None:
    """Puts the directory that the tar archive at `url` holds at `into`, which is left alone where it exists.

    `sha256` is the archive's digest in hexadecimal. Raises FetchError; nothing is left at `into` then.
    """
    if into.exists():
        return
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{_shown(url)} is no http:// or https:// URL")
    try:
        with tempfile.TemporaryDirectory(dir=into.parent, prefix=".fetch-") as scratch:
            with tempfile.TemporaryFile(dir=scratch) as archive:
                _download(url, sha256, archive)
                unpacked = Path(scratch) / "unpacked"
                _unpack(url, archive, unpacked)
            root = _root(unpacked)
            if root is None:
                raise FetchError(f"{_shown(url)} holds no {_MANIFEST}; pack the predictor's directory")
            root.rename(into)
    except OSError as error:
        raise FetchError(f"cannot put {_shown(url)} at {into}: {error.strerror or error}") from error


def _download(url: str, sha256: str, archive: IO[bytes]) -> None:
    digest = hashlib.sha256()
    try:
        with contextlib.closing(urllib.request.urlopen(url, timeout=TIMEOUT_S)) as response:  # noqa: S310 - looked at above
            while chunk := response.read(_CHUNK):
                digest.update(chunk)
                archive.write(chunk)
                if archive.tell() > LARGEST_BYTES:
                    raise FetchError(f"{_shown(url)} is larger than {LARGEST_BYTES} bytes")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        raise FetchError(f"cannot fetch {_shown(url)}: {getattr(error, 'reason', error)}") from error
    if digest.hexdigest() != sha256:
        raise FetchError(f"{_shown(url)} has the sha256 {digest.hexdigest()}, the policy says {sha256}")


def _unpack(url: str, archive: IO[bytes], into: Path) -> None:
    archive.seek(0)
    try:
        with tarfile.open(fileobj=archive) as tar:
            tar.extractall(into, filter="data")
    except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise FetchError(f"{_shown(url)} is no tar archive that can be unpacked: {error}") from error


def _root(unpacked: Path) -> Path | None:
    """The artefact's directory: the archive's root, or the one directory in it."""
    if (unpacked / _MANIFEST).is_file():
        return unpacked
    inside = list(unpacked.iterdir())
    return inside[0] if len(inside) == 1 and (inside[0] / _MANIFEST).is_file() else None


def _shown(url: str) -> str:
    """Without what may be a password or a signature."""
    return url.split("?", 1)[0].rsplit("@", 1)[-1]
