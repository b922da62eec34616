#!/usr/bin/env bash
# Builds the fuzz targets (clang, ASan, UBSan) and runs each for RUNS executions from the golden files
# and what earlier calls found; an input that breaks one is left in build/fuzz.
# Usage: bash tests/fuzz/run.sh [RUNS]      default: 1000000
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=${1:-1000000}

cmake --preset fuzz >/dev/null
cmake --build build/fuzz --target safetensors_fuzz json_fuzz
for target in safetensors json; do
  mkdir -p "build/fuzz/corpus-$target"
  "build/fuzz/tests/fuzz/${target}_fuzz" -runs="$runs" -max_len=16384 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/$target-" "build/fuzz/corpus-$target" tests/golden tests/golden/hf_tiny
done
