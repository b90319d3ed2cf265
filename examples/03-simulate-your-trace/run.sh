#!/usr/bin/env bash
# What policies would do to TRACE on a simulated engine. Arguments go to `trail simulate`.
set -euo pipefail
trace=${TRACE:-$(dirname "$0")/trace.csv}
trail simulate "$trace" --arms fcfs,trail-c0.2,adaptive --load 1.05x --slots 16 --seeds 2 \
    --steps h200-8b --out "${OUT:-build/your-trace}" "$@"
