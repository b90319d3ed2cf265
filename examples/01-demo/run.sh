#!/usr/bin/env bash
# Serve the demo model under TRAIL, ask it once, look at the sidecar, stop both. Arguments go to vLLM.
set -euo pipefail
url=http://127.0.0.1:${PORT:-8001}
trail serve demo --policy trail-c0.2 --host 127.0.0.1 --port "${url##*:}" "$@" & served=$!
trap 'kill $served; wait $served || true' EXIT
until curl -sf "$url/health"; do kill -0 $served; sleep 1; done
curl -sf "$url/v1/completions" -H 'Content-Type: application/json' \
    -d '{"model": "demo", "prompt": "write a brief story about the river .", "max_tokens": 64}'
trail top --once
