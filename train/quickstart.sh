#!/usr/bin/env bash
# From a fresh Debian 12 or Ubuntu 24.04 machine to a trained xLSTM: installs, builds, trains a
# small model on the King James Bible for about three minutes, evaluates it and writes a sample.
# Usage: bash train/quickstart.sh [a.b=value …]     (overrides of configs/quickstart.yaml)
# Running it again resumes; delete runs/quickstart to start over.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "== 1/4 packages"
bash train/setup.sh --text

echo "== 2/4 build"
cmake --preset cpu-release -DCAROUSEL_TESTS=OFF >/dev/null
cmake --build build/cpu-release --target carousel_program

echo "== 3/4 text"
text=build/quickstart/king-james.txt
mkdir -p "$(dirname "$text")"
# The package prints one verse a line behind its reference ("Ge1:1 In the beginning …").
PATH="$PATH:/usr/games" bible -f -l100000 'Gen1:1-Rev22:21' | sed -E 's/^[0-9A-Za-z]+:[0-9]+ //' >"$text.part"
mv "$text.part" "$text"
echo "$text: $(wc -c <"$text") bytes"

echo "== 4/4 train"
carousel=build/cpu-release/carousel
"$carousel" train configs/quickstart.yaml data.train="$text" "$@"
echo
"$carousel" generate runs/quickstart --prompt "And God said" --tokens 400 --temperature 0.7

cat <<EOF

Done. The run is in runs/quickstart (report.html, metrics.jsonl, train.log, checkpoints/). Next:
  $carousel generate runs/quickstart --prompt "In the beginning" --tokens 1000
  $carousel train configs/quickstart.yaml data.train=$text steps=3000     # goes on from here
  $carousel train configs/shakespeare_cpu.yaml data.train=YOUR_TEXT.txt
EOF
