"""Generate the gRPC stubs in `sidecar/trail/wire/v1` from `protos/trail/v1/trail.proto`.

    python protos/generate.py           writes them
    python protos/generate.py --check   exits 1 when they are not what the contract makes

protoc's output is changed in these ways:

- Imports and module names say `trail.wire.v1`, where the stubs are.
- The check of protobuf's runtime version is taken out. It accepts the runtime's own and one earlier major
  version, while vLLM's environments hold protobuf 5, 6 or 7. What the stubs hold is a serialized descriptor,
  whose format is stable, built by an interface that is the same in all three.
- The check of grpcio's version is taken out for the same reason: it asks for grpcio-tools' own version, and
  the stubs use nothing that grpcio 1.63 lacks.
- The server's registered handlers are taken out: grpcio 1.63 does not have them. They are a second way to the
  same handlers, which saves a look-up by name for each call.
- The line with protobuf's version is dropped, so that a tool update alone does not change the stubs.

tests/wire/test_stubs.py runs the result on the oldest and the newest runtimes.
"""

import argparse
import importlib.resources
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
SOURCE = "trail/v1/trail.proto"
TARGET = PROTOS.parent / "sidecar" / "trail" / "wire" / "v1"
PACKAGE = "trail.wire.v1"


def generate() -> dict[str, str]:
    """Text of every stub file, by name. Raises SystemExit when protoc refuses the contract."""
    includes = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as directory:
        outputs = [f"--{kind}_out={directory}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", f"-I{PROTOS}", f"-I{includes}", *outputs, SOURCE]):
            raise SystemExit(f"protoc refused {PROTOS / SOURCE}; its messages are above")
        made = {path.name: path.read_text() for path in Path(directory, SOURCE).parent.iterdir()}
    stubs = {name: rewrite(name, text) for name, text in made.items()}
    stubs["__init__.py"] = '"""Generated from `protos/trail/v1/trail.proto` by `protos/generate.py`."""\n'
    return stubs


def rewrite(name: str, text: str) -> str:
    """protoc's output as it is kept. Raises SystemExit where it is not of the shape expected."""
    if name == "trail_pb2.py":
        text = replace(text, r"^# Protobuf Python Version: .*\n", "")
        text = replace(text, r"^from google\.protobuf import runtime_version as _runtime_version\n", "")
        text = replace(text, r"^_runtime_version\.ValidateProtobufRuntimeVersion\([^)]*\)\n", "")
        text = replace(text, r"'trail\.v1\.trail_pb2'", f"'{PACKAGE}.trail_pb2'")
    elif name == "trail_pb2_grpc.py":
        text = replace(text, r"^import warnings\n", "")
        text = replace(text, r"^GRPC_GENERATED_VERSION = (?:.*\n)*?    \)\n+", "\n")
        text = replace(
            text,
            r"^    server\.add_registered_method_handlers\(.*\)\n",
            "",
            times=text.count("\nclass ") // 3,
        )
        text = replace(text, r"^from trail\.v1 import ", f"from {PACKAGE} import ")
    return text


def replace(text: str, pattern: str, by: str, times: int = 1) -> str:
    """Replace exactly `times` matches."""
    text, found = re.subn(pattern, by, text, flags=re.MULTILINE)
    if found != times:
        raise SystemExit(
            f"grpcio-tools {version('grpcio-tools')} writes {found} times what matches "
            f"{pattern!r}, expected {times}; "
            "adapt protos/generate.py or use the grpcio-tools of the lock"
        )
    return text


def main() -> int:
    """Write or check the stubs."""
    parser = argparse.ArgumentParser(description="Generate the gRPC stubs from protos/.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 when the stubs are not current"
    )
    check = parser.parse_args().check
    stubs = generate()
    TARGET.mkdir(exist_ok=True)
    kept = {path.name: path.read_text() for path in TARGET.iterdir() if path.is_file()}
    stale = sorted(name for name in stubs.keys() | kept.keys() if stubs.get(name) != kept.get(name))
    if check and stale:
        print(
            f"{TARGET}: {', '.join(stale)} not current (made with grpcio-tools {version('grpcio-tools')}); "
            "run: python protos/generate.py",
            file=sys.stderr,
        )
        return 1
    if not check:
        for name in stale:
            if name in stubs:
                (TARGET / name).write_text(stubs[name])
            else:
                (TARGET / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
