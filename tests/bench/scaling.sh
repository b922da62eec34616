#!/usr/bin/env bash
# Measures data parallelism on the GPUs (or, for a try, the cores) of one host, in one command.
# Usage: bash tests/bench/scaling.sh PROGRAM RANKS CONFIG... [-- key=value ...]
#   PROGRAM  the carousel executable
#   RANKS    numbers of processes, e.g. "1 2 4 8": powers of two, ascending
#   CONFIG   configurations to train on random text, with their own micro_batch_size on each rank
#   key=…    overrides for all runs
# Environment: STEPS of each run (30), TRIES sets of overrides to compare at the largest number,
# separated by semicolons, SMALL overrides that make a model for the checks of bits and faults.
# Prints Markdown: tokens/s against one rank, ZeRO-1, the tries, the time that is not hidden, the
# stall of an asynchronous checkpoint, bitwise equality of the deterministic mode, a SIGTERM that
# stops all ranks, and a run that survives kill -9 on fewer ranks.
# Exit 1 if a check fails. Targets of speed are for the reader to judge.
set -euo pipefail
program=$(realpath "$1")
read -ra ranks <<<"$2"
shift 2
configs=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do configs+=("$1"); shift; done
[ $# -gt 0 ] && shift
overrides=("$@")
steps=${STEPS:-30}
IFS=';' read -ra tries <<<"${TRIES-distributed.bucket_mb=25;distributed.bucket_mb=8000}"
read -ra small <<<"${SMALL:-model.embedding_dim=256 model.num_heads=2 model.num_blocks=2 data.seq_len=256}"
largest=${ranks[-1]}
failed=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
head -c 6000000 /dev/urandom | base64 >"$work/text.txt"
data=("data.train=$work/text.txt" data.val=null data.tokenizer=byte data.document_boundaries=false
  data.document_token=null schedule.warmup=0 checkpoint.every=0 eval.every=0 logging.every=10)

# start WORLD CONFIG RUN [overrides]: every rank in the background; their ids in `pids`.
start() {
  local world=$1 config=$2 run=$3 port=$((20000 + RANDOM % 20000)) r
  shift 3
  pids=()
  for ((r = 0; r < world; ++r)); do
    RANK=$r LOCAL_RANK=$r WORLD_SIZE=$world LOCAL_WORLD_SIZE=$world MASTER_ADDR=127.0.0.1 \
      MASTER_PORT=$port OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(nproc) / world > 0 ? $(nproc) / world : 1))} \
      "$program" train "$config" "${data[@]}" "output_dir=$work/$run" "steps=$steps" \
      "${overrides[@]}" "$@" >"$work/$run.$r.log" 2>&1 &
    pids+=($!)
  done
}

# train WORLD CONFIG RUN [overrides]: to the end.
train() {
  local pid
  start "$@"
  for pid in "${pids[@]}"; do
    if ! wait "$pid"; then
      echo "run $3 failed:" >&2
      tail -n 3 "$work/$3".*.log >&2
      failed=1
      return 1
    fi
  done
}

# figures RUN: median tokens/s, milliseconds and GiB of the second half of the steps; the stall.
figures() {
  local stall
  stall=$(grep -o '"checkpoint_stall_ms":[0-9.]*' "$work/$1/metrics.jsonl" | cut -d: -f2)
  grep '"loss"' "$work/$1/metrics.jsonl" | tail -n $((steps / 2)) |
    sed -E 's/.*"memory_bytes":([0-9.e+]+).*"seconds":([0-9.e+-]+).*"tokens_per_second":([0-9.e+]+).*/\3 \2 \1/' |
    sort -g | awk -v stall="$stall" '{t[NR] = $1; s[NR] = $2; m = $3}
      END {k = int((NR + 1) / 2); printf "%.0f %.2f %.1f %.0f", t[k], 1000 * s[k], m / 2^30, stall}'
}

# row NAME RUN WORLD BASE: a line of the table; BASE: the figures of one rank.
row() {
  local tokens ms memory stall base base_ms
  read -r tokens ms memory stall <<<"$(figures "$2")"
  read -r base base_ms _ <<<"$4"
  awk -v n="$1" -v w="$3" -v t="$tokens" -v ms="$ms" -v m="$memory" -v b="$base" -v bms="$base_ms" -v st="$stall" \
    'BEGIN {printf "| %s | %d | %d | %.3f | %.2f | %.2f | %.1f | %d |\n", n, w, t, t / b, ms, ms - bms, m, st}'
}

micro_batch() { sed -n 's/^micro_batch_size: *//p' "$1"; }

for config in "${configs[@]}"; do
  name=$(basename "$config" .yaml)
  per=$(micro_batch "$config")
  echo "## $name, $per sequences a rank"
  echo "| run | ranks | tokens/s | × one | ms a step | ms more than one | GiB | checkpoint stall ms |"
  echo "|---|---|---|---|---|---|---|---|"
  timed=("checkpoint.every=$steps" checkpoint.async=true)
  train 1 "$config" base "data.batch_size=$per" "${timed[@]}" || continue
  base=$(figures base)
  row plain base 1 "$base"
  rm -rf "$work/base"
  for world in "${ranks[@]}"; do
    [ "$world" -gt 1 ] || continue
    for zero in 0 1; do
      train "$world" "$config" run "data.batch_size=$((per * world))" "distributed.zero_stage=$zero" "${timed[@]}" || continue
      row "$([ $zero = 1 ] && echo ZeRO-1 || echo plain)" run "$world" "$base"
      rm -rf "$work/run"
    done
  done
  for try in "${tries[@]}"; do
    read -ra more <<<"$try"
    train "$largest" "$config" run "data.batch_size=$((per * largest))" "${timed[@]}" "${more[@]}" || continue
    row "$try" run "$largest" "$base"
    rm -rf "$work/run"
  done
  echo
done

echo "## Checks"
config=${configs[0]}
batch=$((2 * largest))
check=("${small[@]}" "data.batch_size=$batch" micro_batch_size=2)
declare -A bits
for world in "${ranks[@]}"; do
  for zero in 0 1; do
    [ "$world" -gt 1 ] || [ $zero = 0 ] || continue
    train "$world" "$config" "bits$world$zero" "${check[@]}" distributed.deterministic=true "distributed.zero_stage=$zero" || continue
    bits[$world/$zero]=$(sha256sum "$work/bits$world$zero"/checkpoints/step-*/model.safetensors | cut -c1-16)
  done
done
for key in "${!bits[@]}"; do
  [ "${bits[$key]}" = "${bits[${ranks[0]}/0]}" ] || failed=1
done
echo "- deterministic mode, weights after $steps steps at ranks/zero_stage:$(for key in "${!bits[@]}"; do printf ' %s %s' "$key" "${bits[$key]}"; done | tr '\n' ' ')"

# until_saved RUN: waits for its first checkpoint.
until_saved() {
  local i
  for ((i = 0; i < 1200; ++i)); do
    compgen -G "$work/$1/checkpoints/step-*" >/dev/null && break
    sleep 0.1
  done
}

# SIGTERM to one rank stops all at one step, which is saved.
if [ "$largest" -gt 1 ]; then
  long=$steps
  steps=100000
  start "$largest" "$config" stop "${check[@]}" checkpoint.every=20 distributed.zero_stage=1
  steps=$long
  until_saved stop
  kill -TERM "${pids[$((largest - 1))]}"
  codes=()
  for pid in "${pids[@]}"; do
    code=0
    wait "$pid" || code=$?
    codes+=("$code")
    [ "$code" = 75 ] || failed=1
  done
  echo "- SIGTERM to rank $((largest - 1)) of $largest: exit codes ${codes[*]}; newest checkpoint $(ls "$work/stop/checkpoints" | sort | tail -n 1)"
  rm -rf "$work/stop"
fi

# One rank is killed after its first checkpoint; the others leave and name it; half of them go on.
if [ "$largest" -gt 1 ]; then
  long=$steps
  steps=100000
  start "$largest" "$config" fault "${check[@]}" checkpoint.every=20 distributed.zero_stage=1 distributed.timeout_s=20
  until_saved fault
  victim=$((largest - 1))
  begin=$(date +%s.%N)
  kill -9 "${pids[$victim]}"
  codes=()
  for ((r = 0; r < victim; ++r)); do
    code=0
    wait "${pids[$r]}" || code=$?
    codes+=("$code")
    [ "$code" = 7 ] && grep -q "rank $victim .*died" "$work/fault.$r.log" || failed=1
  done
  seconds=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN {printf "%.1f", b - a}')
  echo "- kill -9 of rank $victim of $largest: exit codes ${codes[*]} after $seconds s; rank 0: $(grep -m 1 error "$work/fault.0.log")"
  saved=$(ls "$work/fault/checkpoints" | sort | tail -n 1 | sed 's/step-0*//')
  steps=$((saved + long))
  if train $((largest / 2)) "$config" fault "${check[@]}" && [ -d "$work/fault/checkpoints/$(printf 'step-%08d' "$steps")" ]; then
    echo "- resumed on $((largest / 2)) from step $saved to $steps"
  else
    failed=1
  fi
fi
exit $failed
