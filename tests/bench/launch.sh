#!/usr/bin/env bash
# Measures the time from `carousel run` to the end of the first step, on this machine's CPU.
# Usage: bash tests/bench/launch.sh PROGRAM [RANKS=2] [REPEATS=11] [CONFIG=configs/shakespeare_cpu.yaml]
# Prints the median, the shortest and the longest time in seconds. Goal: two ranks in under 2 s.
set -euo pipefail
program=$(realpath "$1")
ranks=${2:-2}
repeats=${3:-11}
config=${4:-$(dirname "$0")/../../configs/shakespeare_cpu.yaml}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
head -c 750000 /dev/urandom | base64 >"$work/text.txt"

for ((i = 0; i < repeats; ++i)); do
  rm -f "$work/log"
  begin=$(date +%s%N)
  "$program" run --standalone --nproc-per-node "$ranks" train "$config" device=cpu "data.train=$work/text.txt" \
    "output_dir=$work/run$i" logging.every=1 >"$work/log" 2>&1 &
  launcher=$!
  until grep -qs "step 1/" "$work/log"; do
    kill -0 $launcher 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.005
  done
  echo "$((($(date +%s%N) - begin) / 1000000))"
  kill -9 $launcher
  wait $launcher 2>/dev/null || true
done | sort -n | awk -v r="$ranks" '{ t[NR] = $1 / 1000 }
  END { printf "%d ranks: %.2f s from launch to the first step (%.2f to %.2f in %d starts)\n", r, t[int((NR + 1) / 2)], t[1], t[NR], NR }'
