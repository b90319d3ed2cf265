#!/usr/bin/env bash
# Make a predictor for MODEL out of PROMPTS and show it. Arguments go to `trail profile`, and so to vLLM.
set -euo pipefail
model=${MODEL:-demo} prompts=${PROMPTS:-demo} out=${OUT:-build/your-model}
trail profile "$model" --prompts "$prompts" --out "$out/recording" "$@"
trail train "$out/recording" --out "$out/predictor"
trail inspect "$out/predictor"
echo "next: trail serve $model --predictor $out/predictor"
