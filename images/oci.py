"""Reads an image in an OCI layout, whichever tool wrote it: what it is called by, weighs, says and holds."""

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BILL = "usr/share/doc/trail/sbom.cdx.json"


@dataclass(frozen=True)
class Image:
    """What a registry would get."""

    digest: str
    compressed_bytes: int
    """Manifest, configuration and layers, as they are pulled."""
    unpacked_bytes: int
    """Files of all layers."""
    compressed: bool
    """Whether layers are compressed; where not, a push compresses them and makes another digest."""
    labels: dict[str, str]
    bill: bytes | None
    """The bill of materials, None where the image has none."""


def read(layout: Path) -> Image:
    """The one image of a layout. Raises OSError, KeyError or ValueError for what is no layout."""
    entry = _choose(json.loads((layout / "index.json").read_text())["manifests"])
    if "index" in entry["mediaType"] or "manifest.list" in entry["mediaType"]:
        entry = _choose(json.loads(_blob(layout, entry).read_text())["manifests"])
    manifest = json.loads(_blob(layout, entry).read_text())
    config = json.loads(_blob(layout, manifest["config"]).read_text())
    unpacked, bill = 0, None
    for layer in manifest["layers"]:
        size, found = _layer(_blob(layout, layer))
        unpacked += size
        bill = found or bill
    return Image(
        digest=entry["digest"],
        compressed_bytes=entry["size"] + sum(d["size"] for d in (manifest["config"], *manifest["layers"])),
        unpacked_bytes=unpacked,
        compressed=all(layer["mediaType"].endswith(("gzip", "zstd")) for layer in manifest["layers"]),
        labels=config.get("config", {}).get("Labels") or {},
        bill=bill,
    )


def _choose(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The image among what a layout lists, attestations aside."""
    images = [e for e in entries if e.get("platform", {}).get("os", "linux") == "linux"]
    if len(images) != 1:
        raise ValueError(f"{len(images)} images where one was expected")
    return images[0]


def _blob(layout: Path, descriptor: dict[str, Any]) -> Path:
    return layout / "blobs" / str(descriptor["digest"]).replace(":", "/")


def _layer(path: Path) -> tuple[int, bytes | None]:
    """Bytes of a layer's files, and the bill of materials if it holds one."""
    size, bill = 0, None
    with tarfile.open(path, "r|*") as members:
        for member in members:
            size += member.size if member.isreg() else 0
            if member.name.removeprefix("./") == BILL and (file := members.extractfile(member)):
                bill = file.read()
    return size, bill
