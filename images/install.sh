#!/bin/sh
# The installation steps of the images: images/install.sh ROLE PYTHON [DIRECTORY]. The Dockerfiles and the tests run
# this very file. PYTHON is that of a fresh virtual environment; `engine` takes a DIRECTORY to put the plugin in.
set -eu
role=$1 python=$2
root=$(cd "$(dirname "$0")/.." && pwd)
pip() { "$python" -m pip --disable-pip-version-check --no-input "$@"; }

# The wheel, with the builder that the lock names, in a place of its own.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in hatchling packaging pathspec pluggy trove-classifiers tomlkit editables; do
    grep "^$name==" "$root/requirements.lock" || true
done > "$work/builder.txt"
pip install -q --no-deps --target "$work/builder" -r "$work/builder.txt"
PYTHONPATH="$work/builder" pip wheel -q --no-deps --no-build-isolation -w "$work/wheel" "$root"

case $role in
sidecar | operator)
    pip install -q --no-deps -r "$root/images/$role/requirements.txt"
    pip install -q --no-deps "$work"/wheel/*.whl
    ;;
engine)
    # What vLLM loads: the engine side, what it stands on, and the metadata with the plugin's entry point.
    # vLLM brings every package that they need.
    "$python" -m zipfile -e "$work"/wheel/*.whl "$work/plugin"
    mkdir -p "$3/trail"
    cp -R "$work"/plugin/trail_serving-*.dist-info "$3"
    cp "$work"/plugin/trail/__init__.py "$3/trail"
    if [ -e "$work/plugin/trail/py.typed" ]; then cp "$work/plugin/trail/py.typed" "$3/trail"; fi
    for part in engine policy wire; do cp -R "$work/plugin/trail/$part" "$3/trail"; done
    ;;
*)
    echo "install.sh: role $role is none of sidecar, operator, engine" >&2
    exit 2
    ;;
esac
