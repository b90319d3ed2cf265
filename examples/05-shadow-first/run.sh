#!/usr/bin/env bash
# What a policy would have gained on the requests of a decision LOG. Arguments go to `trail shadow-report`.
set -euo pipefail
log=${LOG:-$(dirname "$0")/decisions.jsonl}
trail shadow-report "$log" --policies trail-c0.2,adaptive --out "${OUT:-build/shadow}" "$@"
