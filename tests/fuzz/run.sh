#!/usr/bin/env bash
# Builds the fuzz target (clang, ASan, UBSan) and runs it for RUNS executions from the golden files and
# what earlier calls found; an input that breaks it is left in build/fuzz.
# Usage: bash tests/fuzz/run.sh [RUNS]      default: 1000000
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=${1:-1000000}

cmake --preset fuzz >/dev/null
cmake --build build/fuzz --target safetensors_fuzz
mkdir -p build/fuzz/corpus
exec build/fuzz/tests/fuzz/safetensors_fuzz -runs="$runs" -max_len=16384 -print_final_stats=1 \
  -artifact_prefix=build/fuzz/safetensors- build/fuzz/corpus tests/golden tests/golden/hf_tiny
