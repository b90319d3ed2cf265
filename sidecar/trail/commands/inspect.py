"""`trail inspect PATH`: what a predictor on disk is, after checking all of it."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trail.predict.manifest import ArtefactError, Manifest


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `trail inspect`."""
    parser.description = "Check a predictor and show what it is; exit code 2 when it cannot be used."
    parser.add_argument("path", type=Path, help="directory of the predictor")
    parser.add_argument(
        "--model", type=Path, help="also check that it was trained for the model in this directory"
    )
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def run(args: argparse.Namespace) -> int:
    """Exit code 0, or 2 with one sentence on standard error."""
    from trail.predict import artefact  # brings torch in, which --help can do without

    try:
        manifest = artefact.load(args.path).manifest
        if args.model is not None:
            artefact.check_model(manifest, args.model)
    except ArtefactError as error:
        print(f"trail inspect: {error}", file=sys.stderr)
        return 2
    print(json.dumps(manifest.to_json(), indent=2) if args.json else _table(manifest))
    return 0


def _table(manifest: Manifest) -> str:
    bins = manifest.bins
    files = ", ".join(f"{name} ({record.bytes:,} bytes)" for name, record in manifest.files.items())
    layer = "no probe" if manifest.layer is None else f"{manifest.layer} of {manifest.num_layers}"
    rows = [
        ("model", f"{manifest.model_id} ({manifest.model_revision})"),
        ("architecture", manifest.model_fingerprint[:16]),
        ("weights", manifest.weights_fingerprint[:16] or "not recorded"),
        ("layer", f"{layer}, hidden size {manifest.hidden_size}"),
        ("bins", f"{bins.k}, from 0 to {bins.edges[-1]:g} tokens"),
        (
            "decoding",
            ", ".join(f"{name} {_shown(value)}" for name, value in manifest.decoding.to_json().items()),
        ),
        ("prompt predictor", "yes" if manifest.has_prompt else "no"),
        ("mean output", f"{manifest.mean_output_tokens:.1f} tokens in the training data"),
        ("training data", manifest.training_data_sha256[:16]),
        ("files", files),
        *_flat("recipe", manifest.recipe),
        *_flat("metrics", manifest.metrics),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"
    return str(value)
