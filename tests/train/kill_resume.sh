#!/usr/bin/env bash
# A run killed with SIGKILL at random moments and started again, ROUNDS times, must end with the
# very bits of a run that was never interrupted: weights, optimizer and the losses of every step.
# With RANKS > 1 it runs in so many processes, of which now one, now another, now all are killed.
# Usage: kill_resume.sh CAROUSEL_BINARY [ROUNDS=20] [extra overrides …]
# Environment: RANKS (1), STEPS (240)
set -euo pipefail
carousel=$1
rounds=${2:-20}
shift $(($# < 2 ? $# : 2))
ranks=${RANKS:-1}
steps=${STEPS:-240}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
here=$(cd "$(dirname "$0")/../.." && pwd)

cat >"$work/run.yaml" <<EOF
name: kill
seed: 5
steps: $steps
model: {family: xlstm_large, embedding_dim: 64, num_heads: 2, num_blocks: 2, dropout: 0.1}
data: {train: $here/tests/data/prose.txt, val: 0.1, tokenizer: char, seq_len: 32, batch_size: 8}
micro_batch_size: 4
optim: {lr: 3.0e-3}
schedule: {warmup: 10}
eval: {every: 40, batches: 2}
checkpoint: {every: 3, keep: 2}
logging: {every: 1}
EOF

export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
launcher=()
if [ "$ranks" -gt 1 ]; then
  export OMP_NUM_THREADS=1
  launcher=(run --standalone --nproc-per-node "$ranks")
fi
train=("$carousel" "${launcher[@]}" train "$work/run.yaml" "$@")

begin=$(date +%s%N)
"${train[@]}" "output_dir=$work/whole" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
whole_ms=$((($(date +%s%N) - begin) / 1000000))

kills=0
for ((i = 0; i < rounds; ++i)); do
  "${train[@]}" "output_dir=$work/broken" >"$work/log" 2>&1 &
  pid=$!
  # Short enough that nearly every round ends in a kill, long enough that starts, resumes, steps,
  # evaluations and saves are all hit.
  sleep "$(awk -v ms=$((RANDOM % (whole_ms / 6 + 1))) 'BEGIN { print ms / 1000 }')"
  # The launcher, whose death is that of all, or one of its processes, whose end the others notice.
  victims=("$pid")
  [ "$ranks" -eq 1 ] || read -ra victims <<<"$pid $(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)"
  if kill -9 "${victims[RANDOM % ${#victims[@]}]}" 2>/dev/null; then kills=$((kills + 1)); fi
  wait $pid 2>/dev/null || true
done
"${train[@]}" "output_dir=$work/broken" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }

last=$(printf 'checkpoints/step-%08d' "$steps")
for file in "$work/whole/$last"/*.safetensors; do
  cmp "$file" "$work/broken/$last/$(basename "$file")"
done
losses() {
  python3 - "$1" <<'PY'
import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    if "checkpoint_stall_ms" in row: continue
    print({k: row[k] for k in ("step", "loss", "grad_norm", "lr", "val_loss") if k in row})
PY
}
diff <(losses "$work/whole/metrics.jsonl") <(losses "$work/broken/metrics.jsonl")
echo "killed $kills of $rounds runs; weights, optimizer and losses identical"
