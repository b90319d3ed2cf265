"""What a release would push: `make release-dry-run` makes all of it in build/release and pushes nothing.

Builds the images, or takes those that are there (--no-build), packages the wheel and the charts, takes the
bills of materials out of the images, writes build/release/manifest.json and prints it as a table. Environment
variables are those of images/build.sh.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import oci
import yaml  # type: ignore[import-untyped]
from closure import GPU

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "images/build.sh"
CHARTS = ("trail-crds", "trail")
REGISTRY = "ghcr.io/trail-serving"
LIMIT_BYTES = {"operator": 150_000_000, "sidecar": 1_200_000_000, "engine": 6_000_000}
"""Unpacked, bases included."""
OURS_IN_OUT = re.compile(r"images|manifest\.json(\.new)?|.*\.(whl|tgz|cdx\.json)")
"""What is put where `--out` says, and is replaced the next time."""
BASES = {"operator": "PYTHON", "sidecar": "PYTHON", "engine": "COPIER"}


class Refused(Exception):  # noqa: N818 - no fault of the program
    """Why there is nothing to release, in one sentence."""


def output(command: Sequence[str | Path], **more: Any) -> str:
    """What a command prints. Raises Refused where it fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **more)
    except OSError as error:
        raise Refused(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Refused(f"{' '.join(map(str, command))} failed: {' '.join(last) or 'it says nothing'}")
    return str(done.stdout).strip("\n")


def versions(root: Path) -> dict[str, str]:
    """Every place that says which version this is."""
    found = {"pyproject.toml": tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]}
    package = root / "sidecar/trail/__init__.py"
    said = re.search(r'^__version__ = "(.*)"$', package.read_text(), re.MULTILINE)
    found[str(package.relative_to(root))] = said[1] if said else "none"
    for name in CHARTS:
        chart = yaml.safe_load((root / "charts" / name / "Chart.yaml").read_text())
        for key in ("version", "appVersion"):
            found[f"{key} of charts/{name}/Chart.yaml"] = str(chart[key])
    return found


def check_versions(found: Mapping[str, str], wanted: str = "") -> str:
    """The one version. Raises Refused where places disagree, or with VERSION."""
    every = {"VERSION": wanted, **found} if wanted else found
    if len(set(every.values())) > 1:
        raise Refused(
            f"versions disagree: {', '.join(f'{k} is {v}' for k, v in every.items())}; make them one"
        )
    return next(iter(every.values()))


def check_tree(status: str, allow_dirty: bool) -> bool:
    """Whether the tree is dirty, by what `git status --porcelain` says. Raises Refused if it may not be."""
    changed = [line[3:] for line in status.splitlines()]
    if changed and not allow_dirty:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise Refused(f"{changed[0]}{more} differ from the commit; commit or stash, or give --allow-dirty")
    return bool(changed)


def check_image(role: str, image: oci.Image, version: str, revision: str) -> None:
    """Raises Refused for an image that is too large, of another commit, without a bill, or made for GPUs."""
    if image.unpacked_bytes > LIMIT_BYTES[role]:
        size, limit = image.unpacked_bytes / 1e6, LIMIT_BYTES[role] / 1e6
        raise Refused(f"the {role}'s image has {size:.1f} MB and may have {limit:.0f} MB (images/release.py)")
    for key, wanted in (("version", version), ("revision", revision)):
        said = image.labels.get(f"org.opencontainers.image.{key}", "nothing")
        if said != wanted:
            raise Refused(f"the {role}'s image says {key} {said} and not {wanted}; build it again")
    if image.bill is None:
        raise Refused(f"the {role}'s image has no /{oci.BILL}; build it by its Dockerfile")
    names = [component["name"].lower() for component in json.loads(image.bill).get("components", [])]
    if foreign := [name for name in names if GPU.fullmatch(name)]:
        raise Refused(
            f"the {role}'s image holds {', '.join(foreign)}, which is for GPUs; look at TORCH_INDEX"
        )


def base(role: str, tool: Sequence[str]) -> dict[str, str | None]:
    """What an image is built on, and its digest where the tool knows it."""
    argument = BASES[role]
    text = (ROOT / "images" / role / "Dockerfile").read_text()
    said = re.search(rf"^ARG {argument}=(\S+)$", text, re.MULTILINE)
    name = os.environ.get(f"{argument}_IMAGE") or (said[1] if said else "")
    if "@" in name:
        return {"name": name, "digest": name.partition("@")[2]}
    commands = {
        "docker": (["image", "inspect", "--format", "{{join .RepoDigests \" \"}}", name],
                   ["buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", name]),
        "podman": (["image", "inspect", "--format", "{{.Digest}}", name],),
        "buildah": (["images", "--format", "{{.Digest}}", name],),
    }  # fmt: skip
    for command in commands[tool[0]]:
        try:
            if digest := re.search(r"sha256:[0-9a-f]{64}", output([*tool, *command])):
                return {"name": name, "digest": digest[0]}
        except Refused:
            continue
    return {"name": name, "digest": None}


def export(name: str, tool: Sequence[str], layout: Path) -> None:
    """An image as an OCI layout, layers compressed where the tool does that."""
    if tool[0] != "docker":
        output([*tool, "push", "--quiet", name, f"oci:{layout}:{name.rpartition(':')[2]}"])
        return
    archive = layout.with_suffix(".tar")
    output([*tool, "save", "--output", str(archive), name])
    with tarfile.open(archive) as members:
        members.extractall(layout, filter="data")
    archive.unlink()


def described(path: Path, out: Path, push_to: str) -> dict[str, Any]:
    """A file that would be pushed."""
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    return {"push_to": push_to, "file": str(path.relative_to(out)), "bytes": len(data), "sha256": sha256}


def packages(out: Path, registry: str, version: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The wheel and the charts, made in `out`."""
    import helm_python

    epoch = output(["git", "log", "-1", "--format=%ct"])
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    output([*pip, "--no-build-isolation", "-w", out, "."], env={**os.environ, "SOURCE_DATE_EPOCH": epoch})
    (wheel,) = out.glob("*.whl")
    charts = []
    for name in CHARTS:
        archive = Path(helm_python.package(ROOT / "charts" / name, destination=out))
        charts.append(described(archive, out, f"oci://{registry}/charts/{name}:{version}"))
    return described(wheel, out, "PyPI, project trail-serving"), charts


def images(out: Path, registry: str, version: str, revision: str) -> tuple[str, list[dict[str, Any]]]:
    """The tool, and what would be pushed of each image; layouts and bills lie in `out`."""
    tool = [output(["sh", BUILD, "--tool"]), *os.environ.get("BUILDER_FLAGS", "").split()]
    found = []
    for role, limit_bytes in LIMIT_BYTES.items():
        name, layout = f"{registry}/trail-{role}:{version}", out / "images" / f"trail-{role}"
        layout.parent.mkdir(exist_ok=True)
        export(name, tool, layout)
        try:
            image = oci.read(layout)
        except (OSError, KeyError, ValueError) as error:
            raise Refused(
                f"{tool[0]} wrote {name} as no OCI layout: {type(error).__name__}: {error}"
            ) from error
        check_image(role, image, version, revision)
        bill = out / f"trail-{role}.cdx.json"
        bill.write_bytes(image.bill or b"")
        found.append({
            "push_to": name, "digest": image.digest, "digest_is_final": image.compressed,
            "compressed_bytes": image.compressed_bytes, "unpacked_bytes": image.unpacked_bytes,
            "limit_bytes": limit_bytes, "layout": str(layout.relative_to(out)), "bill": bill.name,
            "base": base(role, tool), "labels": image.labels,
        })  # fmt: skip
    return tool[0], found


def table(manifest: Mapping[str, Any]) -> str:
    """The manifest for a reader."""
    rows = [("what would be pushed", "MB", "unpacked MB", "digest")]
    for image in manifest["images"]:
        size = (f"{image['compressed_bytes'] / 1e6:.1f}", f"{image['unpacked_bytes'] / 1e6:.1f}")
        digest = image["digest"] if image["digest_is_final"] else "known once it is pushed"
        rows.append((image["push_to"], *size, digest))
    for file in (*manifest["charts"], manifest["wheel"]):
        rows.append(
            (
                f"{file['push_to']} ({file['file']})",
                f"{file['bytes'] / 1e6:.3f}",
                "",
                f"sha256:{file['sha256']}",
            )
        )
    width = max(len(row[0]) for row in rows)
    lines = [f"{what:<{width}}  {size:>7}  {unpacked:>11}  {digest}" for what, size, unpacked, digest in rows]
    for image in manifest["images"]:
        of = image["base"]
        lines.append(
            f"built on {of['name']}, {of['digest'] or 'whose digest is not known here'}: {image['push_to']}"
        )
    return "\n".join(lines)


def run(args: argparse.Namespace) -> None:
    """Raises Refused where a release cannot be."""
    version = check_versions(versions(ROOT), os.environ.get("VERSION", ""))
    revision = output(["git", "rev-parse", "HEAD"])
    dirty = check_tree(output(["git", "status", "--porcelain"]), args.allow_dirty)
    revision = os.environ.get("REVISION") or (f"{revision}-dirty" if dirty else revision)
    registry = os.environ.get("REGISTRY") or REGISTRY
    if not args.no_build:
        environment = {**os.environ, "REVISION": revision}
        if subprocess.run(["sh", BUILD], env=environment, check=False).returncode:
            raise Refused("the images could not be built; what was printed last says why")
    others = [p.name for p in args.out.glob("*") if not OURS_IN_OUT.fullmatch(p.name)]
    if others:
        raise Refused(f"{args.out} holds {others[0]}, which is of no release; name another --out")
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    tool, built = images(args.out, registry, version, revision)
    wheel, charts = packages(args.out, registry, version)
    manifest = {
        "version": version, "revision": revision, "built_with": tool, "images": built, "charts": charts,
        "wheel": wheel,
    }  # fmt: skip
    new = args.out / "manifest.json.new"
    new.write_text(json.dumps(manifest, indent=2) + "\n")
    new.replace(args.out / "manifest.json")
    print(f"{table(manifest)}\n{args.out / 'manifest.json'}; nothing was pushed")


def main() -> int:
    """0, or 1 with a sentence of why there is nothing to release."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build/release", help="where everything is put")
    parser.add_argument(
        "--no-build", action="store_true", help="take the images of this version that are there"
    )
    parser.add_argument("--allow-dirty", action="store_true", help="go on where files differ from the commit")
    args = parser.parse_args()
    args.out = args.out.resolve()
    try:
        run(args)
    except Refused as refused:
        print(f"images/release.py: {refused}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
