#!/bin/sh
# The installation steps of the images: images/install.sh ROLE PYTHON [DIRECTORY]. The Dockerfiles and the tests run
# this very file. PYTHON is that of a fresh virtual environment, which needs no pip and gets none; `engine` takes a
# DIRECTORY to put the plugin in. ROLE is sidecar, operator, engine, or torch: torch alone, for a layer of its own.
#   TORCH_INDEX  index of torch's CPU build; pip's own configuration where empty
#   BILL         file for the bill of materials (CycloneDX JSON) of what was installed; none where empty
set -eu
role=$1 python=$2
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pip and all that only the build needs live here and go with it.
"$python" -m venv "$work/tools"
tools() { "$work/tools/bin/python" -m "$@"; }
# Without byte code, which takes a fifth of an image; images/sidecar/warm.py makes what is worth its place. pip runs
# by the environment's Python and would leave that of what it finds there.
export PYTHONDONTWRITEBYTECODE=1
into() { tools pip --disable-pip-version-check --no-input --python "$python" install -q --no-deps --no-compile "$@"; }

# What nobody imports in a pod: tests, and what torch needs to compile and to test C++.
slim() {
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    find "$site" -type d -name tests -prune -exec rm -rf {} +
    rm -rf "$site/torch/include" "$site/torch/test"
    if [ -d "$site/torch/bin" ]; then find "$site/torch/bin" -type f ! -name torch_shm_manager -delete; fi
}

if [ "$role" = torch ]; then
    into ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' "$root/requirements.lock")"
    slim
    exit
fi

tools pip --disable-pip-version-check --no-input install -q --no-deps -r "$root/images/builder.txt"
tools pip --disable-pip-version-check wheel -q --no-deps --no-build-isolation -w "$work/wheel" "$root"

# describe PYTHON: what its environment holds, our own package as the main component.
describe() {
    [ -n "${BILL:-}" ] || return 0
    mkdir -p "$(dirname "$BILL")"
    tools cyclonedx_py environment --output-reproducible --pyproject "$root/pyproject.toml" -o "$BILL" "$1"
}

case $role in
sidecar | operator)
    into -r "$root/images/$role/requirements.txt"
    # By name: an installation by path would leave the path of this build in the image.
    into --no-index --find-links "$work/wheel" trail-serving
    describe "$python"
    slim
    if [ "$role" = operator ]; then
        # The operator stands on policy and wire alone (import-linter holds that); the rest is for pods and people.
        find "$site/trail" -mindepth 1 -maxdepth 1 \
            ! -name __init__.py ! -name py.typed ! -name policy ! -name wire -exec rm -rf {} +
        rm -f "$(dirname "$python")/trail" "$(dirname "$python")/trail-supervisor"
    fi
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
    "$python" -m venv --without-pip "$work/plugged"
    site=$("$work/plugged/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    (cd "$3" && pwd) > "$site/plugin.pth"
    describe "$work/plugged/bin/python"
    ;;
*)
    echo "install.sh: role $role is none of sidecar, operator, engine, torch" >&2
    exit 2
    ;;
esac
