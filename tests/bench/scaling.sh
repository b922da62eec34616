#!/usr/bin/env bash
# Measures data parallelism on the GPUs (or, for a try, the cores) of one host, in one command.
# Usage: bash tests/bench/scaling.sh PROGRAM RANKS CONFIG... [-- key=value ...]
#   PROGRAM  the carousel executable
#   RANKS    numbers of processes, e.g. "1 2 4 8": powers of two, ascending
#   CONFIG   configurations to train on random text, with their own micro_batch_size on each rank
#   key=…    overrides for all runs
# Environment: STEPS of each run (30), ACCUMULATE numbers of micro-batches a step ("1 4"), TRIES sets
# of overrides to compare at the largest number of ranks, separated by semicolons, SMALL overrides
# that make a model for the checks of bits and faults.
# Prints Markdown: tokens/s against the mean of the GPUs each by itself (all at once), plain and
# ZeRO-1, the tries, the time that is not hidden, the stall of an asynchronous checkpoint, bitwise
# equality of the deterministic mode, a SIGTERM that stops all ranks, a run that survives kill -9
# on fewer ranks, and one that `carousel run` starts again.
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
read -ra accumulate <<<"${ACCUMULATE:-1 4}"
IFS=';' read -ra tries <<<"${TRIES-distributed.bucket_mb=25;distributed.bucket_mb=400;distributed.overlap=false}"
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
  # The port: below those that connections take.
  local world=$1 config=$2 run=$3 port=$((20000 + RANDOM % 12000)) r
  shift 3
  pids=()
  for ((r = 0; r < world; ++r)); do
    RANK=$r LOCAL_RANK=$r WORLD_SIZE=$world LOCAL_WORLD_SIZE=$world MASTER_ADDR=127.0.0.1 \
      MASTER_PORT=$port OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(nproc) / largest > 0 ? $(nproc) / largest : 1))} \
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

# measure WORLD CONFIG RUN [overrides]: to a number of steps; the checkpoint that ends a run would
# take longer than they do.
measure() {
  local wanted=$measured run=$3 pid done=0
  steps=100000 start "$@"
  while [ "$done" -lt "$wanted" ]; do
    sleep 0.2
    done=$(grep -c '"loss"' "$work/$run/metrics.jsonl" 2>/dev/null) || done=${done:-0}
    for pid in "${pids[@]}"; do
      if ! kill -0 "$pid" 2>/dev/null; then
        echo "run $run failed:" >&2
        tail -n 3 "$work/$run".*.log >&2
        failed=1
        done=$wanted
      fi
    done
  done
  kill -9 "${pids[@]}" 2>/dev/null || true
  wait "${pids[@]}" 2>/dev/null || true
}

# alone CONFIG: every GPU by itself, all at once; prints the milliseconds of a step of each.
alone() {
  local config=$1 r all=()
  shift
  for ((r = 0; r < largest; ++r)); do
    CUDA_VISIBLE_DEVICES=$r measure 1 "$config" "alone$r" "$@" &
    all+=($!)
  done
  wait "${all[@]}"
  for ((r = 0; r < largest; ++r)); do
    [ -e "$work/alone$r/metrics.jsonl" ] && figures "alone$r"
    rm -rf "$work/alone$r"
  done
}

# figures RUN: median tokens/s, milliseconds and GiB of the second half of the steps; the stall.
figures() {
  local stall
  stall=$(grep -o '"checkpoint_stall_ms":[0-9.]*' "$work/$1/metrics.jsonl" | head -n 1 | cut -d: -f2) || true
  grep '"loss"' "$work/$1/metrics.jsonl" | tail -n $((measured / 2)) |
    sed -E 's/.*"memory_bytes":([0-9.e+]+).*"seconds":([0-9.e+-]+).*"tokens_per_second":([0-9.e+]+).*/\3 \2 \1/' |
    sort -g | awk -v stall="${stall:--}" '{t[NR] = $1; s[NR] = $2; m = $3}
      END {k = int((NR + 1) / 2); print t[k], 1000 * s[k], m / 2^30, stall}'
}

# row NAME WORLD RUN: a line of the table.
row() {
  [ -e "$work/$3/metrics.jsonl" ] || return 0
  figures "$3" | awk -v name="$1" -v world="$2" -v b="$base" -v bms="$base_ms" '{
    stall = $4 == "-" ? "" : sprintf("%.1f", $4)
    printf "| %s | %d | %d | %.3f | %.2f | %.2f | %.1f | %s |\n", name, world, $1, $1 / b, $2, $2 - bms, $3, stall}'
  rm -rf "$work/$3"
}

micro_batch() { sed -n 's/^micro_batch_size: *//p' "$1"; }

for config in "${configs[@]}"; do
  name=$(basename "$config" .yaml)
  per=$(micro_batch "$config")
  for times in "${accumulate[@]}"; do
    measured=$((steps / times > 12 ? steps / times : 12))
    share=$((per * times))
    singles=$(alone "$config" "data.batch_size=$share")
    [ -n "$singles" ] || continue
    read -r base base_ms <<<"$(awk '{t += $1; m += $2} END {print t / NR, m / NR}' <<<"$singles")"
    echo "## $name, $times × $per sequences a rank"
    echo "One rank alone, all at once: $(awk '{printf "%s%.2f", (NR > 1 ? ", " : ""), $2}' <<<"$singles") ms a step, $(awk '{printf "%.1f", $3; exit}' <<<"$singles") GiB; their mean is the base of the ratios."
    echo
    echo "| run | ranks | tokens/s | × one | ms a step | ms more than one | GiB | checkpoint stall ms |"
    echo "|---|---|---|---|---|---|---|---|"
    for world in "${ranks[@]}"; do
      [ "$world" -gt 1 ] || continue
      for zero in 0 1; do
        more=("distributed.zero_stage=$zero")
        # One step of the second half waits for the copy of the one before; the median does not see it.
        [ "$world" = "$largest" ] && more+=("checkpoint.every=$((measured * 2 / 3))" checkpoint.async=true)
        measure "$world" "$config" run "data.batch_size=$((share * world))" "${more[@]}"
        row "$([ $zero = 1 ] && echo ZeRO-1 || echo plain)" "$world" run
      done
    done
    [ "$times" = "${accumulate[0]}" ] && for try in "${tries[@]}"; do
      read -ra more <<<"$try"
      measure "$largest" "$config" run "data.batch_size=$((share * largest))" "${more[@]}"
      row "$try" "$largest" run
    done
    echo
  done
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

# The launcher: a worker is killed once, and all start again from the newest checkpoint and finish.
if [ "$largest" -gt 1 ]; then
  "$program" run --standalone --nproc-per-node "$largest" --max-restarts 1 train "$config" "${data[@]}" \
    "output_dir=$work/launched" steps=200 "${overrides[@]}" "${check[@]}" checkpoint.every=20 \
    distributed.zero_stage=1 distributed.timeout_s=20 >"$work/launched.log" 2>&1 &
  launcher=$!
  until_saved launched
  read -ra workers <"/proc/$launcher/task/$launcher/children" || true
  kill -9 "${workers[-1]}"
  code=0
  wait "$launcher" || code=$?
  steps_done=$(ls "$work/launched/checkpoints" | sort | tail -n 1)
  again=$(grep -m 1 "restart 1 of 1" "$work/launched.log") || again="not started again"
  if [ "$code" != 0 ] || [ "$steps_done" != step-00000200 ] || [[ $again == not* ]]; then
    failed=1
    tail -n 5 "$work/launched.log" >&2
  fi
  echo "- carousel run --nproc-per-node $largest --max-restarts 1, a worker killed: exit code $code at $steps_done; $again"
fi
exit $failed
