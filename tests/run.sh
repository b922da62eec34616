#!/usr/bin/env bash
# Installs, checks format and clang-tidy, builds, and runs every test that needs no GPU; CI runs it.
# Usage: bash tests/run.sh [--full]      --full: the tests under the sanitizers as well
set -euo pipefail
cd "$(dirname "$0")/.."
full=${1:-}
start=$SECONDS
step() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - start)); }

step "packages"
bash train/setup.sh --tests

step "format"
git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs clang-format-14 --dry-run --Werror

step "build cpu-release"
cmake --preset cpu-release >/dev/null
cmake --build build/cpu-release

step "clang-tidy"
git ls-files 'core/*.cpp' 'layers/*.cpp' 'optim/*.cpp' 'data/*.cpp' 'train/*.cpp' |
  { grep -v -E '/cuda/|/nccl/|parallel_threads' || true; } |
  xargs -P "$(nproc)" -n 4 clang-tidy-14 --quiet -p build/cpu-release 2>&1 |
  { grep -E '(warning|error):' && exit 1 || true; }

step "test cpu-release"
ctest --test-dir build/cpu-release -j "$(nproc)" --output-on-failure --no-tests=error
if [ "$full" = --full ]; then
  step "build cpu-debug (ASan, UBSan)"
  cmake --preset cpu-debug >/dev/null
  cmake --build build/cpu-debug
  step "test cpu-debug"
  ctest --test-dir build/cpu-debug -j "$(nproc)" --output-on-failure --no-tests=error

  step "build cpu-tsan"
  cmake --preset cpu-tsan >/dev/null
  cmake --build build/cpu-tsan
  step "test cpu-tsan"
  ctest --test-dir build/cpu-tsan -j "$(nproc)" --output-on-failure --no-tests=error
fi
step "done"
