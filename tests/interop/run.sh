#!/usr/bin/env bash
# Compares Carousel with the real transformers library. Makes a virtual environment with PyTorch (CPU)
# and transformers in build/interop-venv on the first call, unless CAROUSEL_INTEROP_PYTHON names a
# Python that has both.
# Usage: bash tests/interop/run.sh [BUILD]      default: build/cpu-release, which it builds
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/cpu-release}
python=${CAROUSEL_INTEROP_PYTHON:-}

if [ -z "$python" ]; then
  venv=build/interop-venv
  python=$venv/bin/python
  if ! "$python" -c 'import torch, transformers, safetensors' 2>/dev/null; then
    python3 -m venv "$venv" || { echo "run.sh: install python3-venv first" >&2; exit 2; }
    "$python" -m pip install -q torch transformers safetensors
  fi
fi

[ -e "$build/build.ninja" ] || cmake --preset cpu-release >/dev/null
cmake --build "$build" --target carousel_program interop_logits
exec "$python" tests/interop/interop.py "$build/carousel" "$build/tests/interop_logits"
