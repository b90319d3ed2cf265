#!/bin/sh
# Builds the images. What it does and takes: images/build.sh --help.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
project_version() { sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml; }

usage() {
    cat <<USAGE
usage: [NAME=value...] make images
       [NAME=value...] images/build.sh [ROLE... | --tool]

Builds the images of TRAIL, all three or those of each ROLE (operator, sidecar, engine), as
REGISTRY/trail-ROLE:VERSION, and prints the name, digest and size of each. Pushes nothing. --tool says which tool
it would use.

  REGISTRY       where the images belong, as in registry.example/team (ghcr.io/trail-serving)
  VERSION        their tag and label ($(project_version), of pyproject.toml)
  REVISION       the commit, for their label (that of this checkout, -dirty where files were changed)
  SOURCE         address of the source, for their label (an https address of the remote origin)

Mirrors:
  PYTHON_IMAGE   base with Python, NAME:TAG or NAME@sha256:... (that of the Dockerfiles)
  COPIER_IMAGE   base of the engine's image
  TORCH_INDEX    pip index of torch's CPU builds
  PIP_INDEX_URL  pip index of everything else

Tools:
  TRAIL_BUILDER  docker, podman or buildah (the first of these that is there and works)
  BUILDER_FLAGS  flags of the tool itself, as in '--root DIRECTORY --storage-driver overlay' for podman or buildah
  BUILD_FLAGS    flags of its build command, as in '--pull=false' or '--volume /etc/pip.conf:/etc/pip.conf:ro'
USAGE
}

fail() { echo "images/build.sh: $*" >&2; exit 1; }

case ${1:-} in -h | --help) usage; exit ;; esac
only_tool=
[ "${1:-}" != --tool ] || { only_tool=1; shift; }
for role in "$@"; do
    [ -f "images/$role/Dockerfile" ] || fail "there is no image $role; roles are operator, sidecar and engine"
done
[ $# -gt 0 ] || set -- operator sidecar engine

# docker's client alone builds nothing.
works() { command -v "$1" >/dev/null 2>&1 && { [ "$1" != docker ] || docker version >/dev/null 2>&1; }; }
if [ -n "${TRAIL_BUILDER:-}" ]; then
    case $TRAIL_BUILDER in docker | podman | buildah) ;; *) fail "TRAIL_BUILDER is $TRAIL_BUILDER; it may be docker, podman or buildah" ;; esac
    works "$TRAIL_BUILDER" || fail "TRAIL_BUILDER is $TRAIL_BUILDER, which is not installed or whose daemon does not answer"
    tool=$TRAIL_BUILDER
else
    for tool in docker podman buildah none; do ! works $tool || break; done
    [ "$tool" != none ] || fail "found neither docker (with its daemon running) nor podman nor buildah; install one of them"
fi

[ -z "$only_tool" ] || { echo "$tool"; exit; }

REGISTRY=${REGISTRY:-ghcr.io/trail-serving}
VERSION=${VERSION:-$(project_version)}
if [ -z "${REVISION:-}" ]; then
    REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    [ -z "$(git status --porcelain 2>/dev/null)" ] || REVISION=$REVISION-dirty
fi
if [ -z "${SOURCE:-}" ]; then
    # Without a user or token that may stand in it.
    SOURCE=$(git remote get-url origin 2>/dev/null | sed -n 's#^https://\([^/]*@\)\{0,1\}#https://#p')
fi

# shellcheck disable=SC2086  # several flags in one variable
builder() { "$tool" ${BUILDER_FLAGS:-} "$@"; }

say() { # NAME: its digest and size; docker knows the digest of what it pushes only afterwards, and gives the image's id
    case $tool in
    docker) builder image inspect --format '{{.Id}} {{.Size}}' "$1" ;;
    podman) builder image inspect --format '{{.Digest}} {{.Size}}' "$1" ;;
    buildah) builder images --format '{{.Digest}} {{.Size}}' "$1" ;;
    esac | awk -v name="$1" '{
        size = $3 == "" ? sprintf("%.1f MB", $2 / 1e6) : $2 " " $3
        printf "%-50s %-72s %s\n", name, $1, size
    }'
}

for role in "$@"; do
    name=$REGISTRY/trail-$role:$VERSION
    echo "building $name with $tool" >&2
    arguments="VERSION REVISION SOURCE"
    [ "$role" != sidecar ] || [ -z "${TORCH_INDEX:-}" ] || arguments="$arguments TORCH_INDEX"
    [ -z "${PIP_INDEX_URL:-}" ] || arguments="$arguments PIP_INDEX_URL"
    [ -z "${PYTHON_IMAGE:-}" ] || arguments="$arguments PYTHON"
    [ "$role" != engine ] || [ -z "${COPIER_IMAGE:-}" ] || arguments="$arguments COPIER"
    (
        # Values of their own: make and tests may have another PYTHON.
        export VERSION REVISION SOURCE PYTHON="${PYTHON_IMAGE:-}" COPIER="${COPIER_IMAGE:-}"
        set --
        # A name without a value takes it from the environment, so that no index with a password is seen in `ps`.
        for argument in $arguments; do set -- "$@" --build-arg "$argument"; done
        # docker finds the ignore file beside the Dockerfile by itself.
        [ "$tool" = docker ] || set -- "$@" --ignorefile "images/$role/Dockerfile.dockerignore"
        # shellcheck disable=SC2086  # several flags in one variable
        builder build "$@" ${BUILD_FLAGS:-} -f "images/$role/Dockerfile" -t "$name" .
    ) >&2 || fail "$tool could not build $name; its last lines say why"
done
printf '%-50s %-72s %s\n' image digest size
for role in "$@"; do say "$REGISTRY/trail-$role:$VERSION"; done
