"""make images and make release-dry-run: what tools are told, what would be pushed, and what is refused."""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from image_kit import IMAGES, ROLES, ROOT

import oci  # isort: skip
import release  # isort: skip

VERSION = release.check_versions(release.versions(ROOT))
BILL = json.dumps({"bomFormat": "CycloneDX", "components": [{"name": "redis"}]}).encode()
IMAGE = oci.Image(
    digest="sha256:" + "a" * 64,
    compressed_bytes=1000,
    unpacked_bytes=2000,
    compressed=True,
    labels={"org.opencontainers.image.version": "1.0.0", "org.opencontainers.image.revision": "abc"},
    bill=BILL,
)


def write_layout(layout: Path, layers: list[dict[str, bytes]], labels: dict[str, str]) -> str:
    """An image as a tool would export it. Returns its digest."""

    def blob(data: bytes, kind: str) -> dict[str, Any]:
        name = hashlib.sha256(data).hexdigest()
        (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (layout / "blobs/sha256" / name).write_bytes(data)
        return {
            "digest": f"sha256:{name}",
            "size": len(data),
            "mediaType": f"application/vnd.oci.image.{kind}",
        }

    described = []
    for files in layers:
        with tarfile.open(fileobj=(memory := io.BytesIO()), mode="w") as archive:
            for name, data in files.items():
                (info := tarfile.TarInfo(name)).size = len(data)
                archive.addfile(info, io.BytesIO(data))
        described.append(blob(gzip.compress(memory.getvalue(), mtime=0), "layer.v1.tar+gzip"))
    config = blob(json.dumps({"config": {"Labels": labels}}).encode(), "config.v1+json")
    entry = blob(json.dumps({"config": config, "layers": described}).encode(), "manifest.v1+json")
    (layout / "index.json").write_text(json.dumps({"manifests": [entry]}))
    return str(entry["digest"])


def run_script(words: list[str | Path], tools: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """With the tools of a folder in front, and no setting of this machine."""
    names = ("REGISTRY", "VERSION", "REVISION", "SOURCE", "TRAIL_BUILDER", "BUILDER_FLAGS", "BUILD_FLAGS",
             "PYTHON_IMAGE", "COPIER_IMAGE", "TORCH_INDEX", "PIP_INDEX_URL")  # fmt: skip
    clean = {k: v for k, v in os.environ.items() if k not in names}
    path = f"{tools}:{os.environ['PATH']}"
    return subprocess.run(
        words, capture_output=True, text=True, check=False, env={**clean, "PATH": path, **env}
    )


def fake(tools: Path, name: str, text: str) -> None:
    """A tool that is a script."""
    tools.mkdir(exist_ok=True)
    (tools / name).write_text(f"#!/bin/sh\n{text}\n")
    (tools / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A podman that writes down what it is told and the arguments it finds, and a docker without a daemon."""
    log = tmp_path / "log"
    fake(tmp_path / "tools", "docker", "exit 1")
    fake(
        tmp_path / "tools",
        "podman",
        f'echo "$@" >> {log}\n'
        f'case " $* " in *" build "*) echo "PYTHON=$PYTHON PIP_INDEX_URL=$PIP_INDEX_URL" >> {log} ;; esac\n'
        'case "$*" in *inspect*) echo sha256:abc 1234567 ;; esac',
    )
    return tmp_path / "tools"


def test_images_are_built_with_labels_and_mirrors(tools: Path) -> None:
    done = run_script(
        ["sh", IMAGES / "build.sh"], tools, REGISTRY="registry.example/team", PYTHON="python3.12",
        BUILDER_FLAGS="--root /x", BUILD_FLAGS="--pull=never",
        PYTHON_IMAGE="mirror.example/python@sha256:" + "0" * 64,
        PIP_INDEX_URL="https://me:secret@pypi.example/simple", TORCH_INDEX="https://torch.example/cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = (tools.parent / "log").read_text().splitlines()
    builds = [line for line in said if line.startswith("--root /x build ")]
    assert [re.findall(r"-f images/(\w+)/", line) for line in builds] == [
        ["operator"],
        ["sidecar"],
        ["engine"],
    ]
    for role, line in zip(("operator", "sidecar", "engine"), builds, strict=True):
        assert f"-t registry.example/team/trail-{role}:{VERSION} ." in line
        assert "--pull=never" in line
        assert f"--ignorefile images/{role}/Dockerfile.dockerignore" in line
        given = set(re.findall(r"--build-arg (\w+)", line))
        assert given == {"VERSION", "REVISION", "SOURCE", "PYTHON", "PIP_INDEX_URL"} | (
            {"TORCH_INDEX"} if role == "sidecar" else set()
        )
    assert not [line for line in said if "secret" in line and not line.startswith("PYTHON=")]
    seen = [line for line in said if line.startswith("PYTHON=")]
    assert (
        seen
        == [
            f"PYTHON=mirror.example/python@sha256:{'0' * 64} PIP_INDEX_URL=https://me:secret@pypi.example/simple"
        ]
        * 3
    )
    table = done.stdout.splitlines()
    assert table[0].split() == ["image", "digest", "size"]
    assert table[1].split() == [f"registry.example/team/trail-operator:{VERSION}", "sha256:abc", "1.2", "MB"]
    assert len(table) == 1 + len(ROLES)


def test_the_first_tool_that_works_is_taken(tools: Path) -> None:
    assert run_script(["sh", IMAGES / "build.sh", "--tool"], tools).stdout == "podman\n"
    fake(tools, "docker", "exit 0")
    assert run_script(["sh", IMAGES / "build.sh", "--tool"], tools).stdout == "docker\n"
    assert (
        run_script(["sh", IMAGES / "build.sh", "--tool"], tools, TRAIL_BUILDER="podman").stdout == "podman\n"
    )


def test_without_a_tool_or_with_a_wrong_word_one_sentence_says_so(tmp_path: Path, tools: Path) -> None:
    (tmp_path / "few").mkdir()
    for name in ("sh", "dirname", "sed", "cat", "git"):
        (tmp_path / "few" / name).symlink_to(Path("/bin") / name)
    done = run_script(["sh", IMAGES / "build.sh"], tools, PATH=str(tmp_path / "few"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "found neither docker (with its daemon running) nor podman nor buildah; install one" in done.stderr
    for words, env, sentence in (
        (["operato"], {}, "there is no image operato; roles are operator, sidecar and engine"),
        ([], {"TRAIL_BUILDER": "kaniko"}, "TRAIL_BUILDER is kaniko; it may be docker, podman or buildah"),
        (
            [],
            {"TRAIL_BUILDER": "docker"},
            "TRAIL_BUILDER is docker, which is not installed or whose daemon does",
        ),
    ):
        done = run_script(["sh", IMAGES / "build.sh", *words], tools, **env)
        assert done.returncode == 1
        assert sentence in done.stderr
    fake(tools, "podman", "exit 3")
    done = run_script(["sh", IMAGES / "build.sh", "engine"], tools)
    assert done.returncode == 1
    assert f"podman could not build ghcr.io/trail-serving/trail-engine:{VERSION}" in done.stderr


def test_help_names_every_setting() -> None:
    said = subprocess.run(
        ["sh", IMAGES / "build.sh", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for name in ("REGISTRY", "VERSION", "REVISION", "SOURCE", "PYTHON_IMAGE", "COPIER_IMAGE", "TORCH_INDEX",
                 "PIP_INDEX_URL", "TRAIL_BUILDER", "BUILDER_FLAGS", "BUILD_FLAGS"):  # fmt: skip
        assert f"\n  {name} " in said


def test_versions_agree_and_a_release_of_two_is_refused() -> None:
    found = release.versions(ROOT)
    assert len(found) == 6
    with pytest.raises(
        release.Refused, match=r"versions disagree: .*appVersion of charts/trail/Chart.yaml is 9"
    ):
        release.check_versions({**found, "appVersion of charts/trail/Chart.yaml": "9"})
    with pytest.raises(release.Refused, match=r"versions disagree: VERSION is 9"):
        release.check_versions(found, "9")


def test_a_dirty_tree_is_refused_unless_allowed() -> None:
    status = " M charts/trail/values.yaml\n?? new\n"
    with pytest.raises(release.Refused, match=r"^charts/trail/values.yaml and 1 more differ from the commit"):
        release.check_tree(status, allow_dirty=False)
    assert release.check_tree(status, allow_dirty=True)
    assert not release.check_tree("", allow_dirty=False)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"unpacked_bytes": 150_000_001}, "the operator's image has 150.0 MB and may have 150 MB"),
        ({"labels": {}}, "the operator's image says version nothing and not 1.0.0; build it again"),
        ({"labels": {**IMAGE.labels, "org.opencontainers.image.revision": "old"}},
         "the operator's image says revision old and not abc; build it again"),
        ({"bill": None}, "the operator's image has no /usr/share/doc/trail/sbom.cdx.json"),
        ({"bill": b'{"components": [{"name": "nvidia-cublas"}]}'}, "holds nvidia-cublas, which is for GPUs"),
    ],
)  # fmt: skip
def test_an_image_that_may_not_go_out_is_refused(change: dict[str, Any], sentence: str) -> None:
    release.check_image("operator", IMAGE, "1.0.0", "abc")
    with pytest.raises(release.Refused, match=re.escape(sentence)):
        release.check_image("operator", replace(IMAGE, **change), "1.0.0", "abc")


def test_an_image_is_read_out_of_its_layout(tmp_path: Path) -> None:
    digest = write_layout(tmp_path, [{"a": b"x" * 5000}, {oci.BILL: BILL, "b": b"y" * 7}], {"l": "m"})
    image = oci.read(tmp_path)
    assert image.digest == digest
    assert image.unpacked_bytes == 5007 + len(BILL)
    assert image.compressed_bytes == sum(p.stat().st_size for p in (tmp_path / "blobs/sha256").iterdir())
    assert (image.compressed, image.labels, image.bill) == (True, {"l": "m"}, BILL)


def test_a_dry_run_says_exactly_what_would_be_pushed(tmp_path: Path, tools: Path) -> None:
    """With images that podman has already; the wheel and the charts are real."""
    out, prepared = tmp_path / "out", tmp_path / "prepared"
    labels = {"org.opencontainers.image.version": VERSION, "org.opencontainers.image.revision": "abc"}
    digest = write_layout(prepared, [{oci.BILL: BILL}], labels)
    fake(
        tools,
        "podman",
        'case "$1" in\n'
        f'push) place=${{4#oci:}}; cp -R {prepared} "${{place%:*}}" ;;\n'
        f"image) echo sha256:{'b' * 64} ;;\n"
        "*) echo nothing else may happen: $* >&2; exit 1 ;;\n"
        "esac",
    )
    words = [sys.executable, IMAGES / "release.py", "--out", out, "--no-build", "--allow-dirty"]
    done = run_script([*map(str, words)], tools, REGISTRY="registry.example/team", REVISION="abc")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["version"], manifest["revision"], manifest["built_with"]) == (VERSION, "abc", "podman")
    places = {image["push_to"]: image for image in manifest["images"]}
    assert set(places) == {f"registry.example/team/trail-{role}:{VERSION}" for role in ROLES}
    for image in places.values():
        assert image["digest"] == digest
        assert image["base"]["digest"] == "sha256:" + "b" * 64
        assert json.loads((out / image["bill"]).read_text()) == json.loads(BILL)
        assert (out / image["layout"] / "index.json").exists()
    for file in (*manifest["charts"], manifest["wheel"]):
        assert hashlib.sha256((out / file["file"]).read_bytes()).hexdigest() == file["sha256"]
        assert file["push_to"] in done.stdout
        assert file["sha256"] in done.stdout
    assert [file["push_to"] for file in manifest["charts"]] == [
        f"oci://registry.example/team/charts/{name}:{VERSION}" for name in ("trail-crds", "trail")
    ]
    assert manifest["wheel"]["file"] == f"trail_serving-{VERSION}-py3-none-any.whl"
    assert done.stdout.splitlines()[-1].endswith("nothing was pushed")


def test_a_refusal_is_one_sentence(tmp_path: Path, tools: Path) -> None:
    words = [sys.executable, IMAGES / "release.py", "--out", tmp_path / "out", "--no-build", "--allow-dirty"]
    done = run_script([*map(str, words)], tools, VERSION="9")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("images/release.py: versions disagree: VERSION is 9")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
