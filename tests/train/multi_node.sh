#!/usr/bin/env bash
# Runs of two hosts, each with its own `carousel run`, over gloo: two network namespaces of this
# machine, joined by a virtual cable. What ends well and what goes wrong: exit codes and messages.
# Usage: multi_node.sh CAROUSEL_BINARY      needs root and iproute2; else it says so and exits with 77
set -euo pipefail
carousel=$1

skip() { echo "skipped: $1"; exit 77; }
[ "$(id -u)" -eq 0 ] || skip "network namespaces need root"
command -v ip >/dev/null || skip "there is no ip command; install iproute2"
id=carousel$$
ip netns add "$id-a" 2>/dev/null || skip "this system does not permit network namespaces (ip netns add)"
work=$(mktemp -d)
cleanup() {
  local jobs_left
  jobs_left=$(jobs -p)
  [ -z "$jobs_left" ] || kill -9 $jobs_left 2>/dev/null || true
  wait 2>/dev/null || true
  ip netns del "$id-a" 2>/dev/null || true
  ip netns del "$id-b" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

# Besides the cable, each host has a network that leads nowhere: gloo must not choose that.
ip netns add "$id-b"
ip -n "$id-a" link add cable type veth peer name cable netns "$id-b"
for host in a b; do
  number=$([ $host = a ] && echo 1 || echo 2)
  ip -n "$id-$host" link add nowhere type dummy 2>/dev/null || ip -n "$id-$host" link add nowhere type bridge
  ip -n "$id-$host" address add "192.0.2.$number/24" dev nowhere
  ip -n "$id-$host" address add "198.51.100.$number/24" dev cable
  for link in lo nowhere cable; do ip -n "$id-$host" link set "$link" up; done
done
master=198.51.100.1

for ((i = 0; i < 300; ++i)); do echo "line $((i * i)) of a small text."; done >"$work/text.txt"
cat >"$work/run.yaml" <<EOF
name: nodes
steps: 40
device: cpu
model: {family: xlstm_large, embedding_dim: 32, num_heads: 2, num_blocks: 2, chunk_size: 16}
data: {train: $work/text.txt, val: 0.1, tokenizer: byte, seq_len: 16, batch_size: 8}
optim: {lr: 3.0e-3}
schedule: {decay_steps: 40}
eval: {batches: 3}
logging: {every: 1}
distributed: {timeout_s: 3}
EOF
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
port=20000

# start HOST NODE_RANK RUN [launcher options -- overrides]: its process in pids[HOST], its output in
# $work/HOST.log.
declare -A pids
start() {
  local host=$1 node=$2 run=$3 options=()
  shift 3
  while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
  [ $# -eq 0 ] || shift
  : >"$work/$host.log" # nobody must read the one before
  # ip replaces itself by the program.
  ip netns exec "$id-$host" "$carousel" run --nnodes 2 --node-rank "$node" --master-addr $master \
    --master-port $port "${options[@]}" train "$work/run.yaml" "output_dir=$work/$run" "$@" \
    >"$work/$host.log" 2>&1 &
  pids[$host]=$!
}
fresh() { port=$((port + 1)); echo "-- $1 ($SECONDS s)"; }

fail() {
  echo "FAILED: $1"
  for host in a b; do echo "host $host:"; cat "$work/$host.log"; done
  exit 1
}
# ends HOST CODE [TEXT …]: waits for it, and looks for the texts in its output.
ends() {
  local host=$1 want=$2 code=0 text
  shift 2
  wait "${pids[$host]}" 2>/dev/null || code=$?
  [ "$code" -eq "$want" ] || fail "host $host ended with $code, not $want"
  for text in "$@"; do grep -q -- "$text" "$work/$host.log" || fail "host $host does not say: $text"; done
}
# prints HOST TEXT: waits until it does.
prints() {
  local i
  for ((i = 0; i < 3000; ++i)); do
    grep -q -- "$2" "$work/$1.log" 2>/dev/null && return
    sleep 0.01
  done
  fail "host $1 does not say: $2"
}

fresh "two processes a host end with one process's losses; the second host comes late"
"$carousel" train "$work/run.yaml" "output_dir=$work/one" >"$work/one.log" 2>&1
start a 0 plain --nproc-per-node 2
sleep 2
start b 1 plain --nproc-per-node 2
ends a 0 "4 processes over gloo"
ends b 0
python3 - "$work/one/metrics.jsonl" "$work/plain/metrics.jsonl" <<'PY'
import json, sys
def losses(path):
    rows = map(json.loads, open(path))
    return [row.get("loss", row.get("val_loss")) for row in rows if "checkpoint_stall_ms" not in row]
one, two = map(losses, sys.argv[1:])
assert len(one) == len(two) == 41, (len(one), len(two))
worst = max(abs(a - b) for a, b in zip(one, two))
assert worst < 1e-5, worst
PY

fresh "a signal to one host's launcher stops both; they go on together"
start a 0 stop -- steps=100000
start b 1 stop -- steps=100000
prints a "step 5/"
kill -TERM "${pids[b]}"
ends a 75 "stopped by the signal 'Terminated'"
ends b 75 "stopped by the signal 'Terminated'"

fresh "the host without rank 0 is lost"
start a 0 lost --nproc-per-node 2 -- steps=100000
start b 1 lost --nproc-per-node 2 -- steps=100000
prints a "step 5/"
kill -9 "${pids[b]}"
ends b 137
ends a 7 "failed: rank [23] (process [0-9]* on .*) died" "(collective "

fresh "the host of rank 0 is lost"
start a 0 lost -- steps=100000
start b 1 lost -- steps=100000
prints a "step 5/"
kill -9 "${pids[a]}"
ends a 137
ends b 7 "failed: rank 0 died or does not respond (the store at $master:$port is gone" "(collective "

fresh "the network between them is cut"
start a 0 cut -- steps=100000
start b 1 cut -- steps=100000
prints a "step 5/"
sleep 0.6 # a heartbeat
ip -n "$id-b" link set cable down
ends a 7 "failed: rank 1 does not respond, last heard of in .* (collective "
ends b 7 "failed: rank 0 died or does not respond (the store at $master:$port is gone" "(collective "
ip -n "$id-b" link set cable up

fresh "a killed process: both hosts start again from the newest checkpoint"
start a 0 again --max-restarts 1 -- steps=200 checkpoint.every=10
start b 1 again --max-restarts 1 -- steps=200 checkpoint.every=10
prints a "step 31/"
kill -9 "$(cat "/proc/${pids[b]}/task/${pids[b]}/children")"
ends a 0 "rank 1 (process .*) died" "restart 1 of 1" "resuming at step" "step 200/200"
ends b 0 "killed by signal 9" "restart 1 of 1"

fresh "the port is taken"
ip netns exec "$id-a" python3 -c "
import socket, time
taken = socket.create_server(('', $port))
open('$work/taken', 'w').close()
time.sleep(60)" &
until [ -e "$work/taken" ]; do sleep 0.02; done
start a 0 taken -- distributed.timeout_s=1
start b 1 taken -- distributed.timeout_s=1
ends a 2 "\[rank0\]: error: cannot listen on port $port: Address already in use; choose another MASTER_PORT"
ends b 7 "the store at $master:$port does not answer: .* is it another program's port?"

fresh "two hosts of one node rank"
start a 0 twice
start b 0 twice
ends a 2 "error: two processes claim rank 0 of 2, the second is process "
ends b 2 "error: two processes claim rank 0 of 2, the second is process "

fresh "nobody is node 0"
start a 1 nobody -- distributed.timeout_s=1
start b 1 nobody -- distributed.timeout_s=1
ends a 7 "cannot reach $master:$port: Connection refused"
ends b 7 "cannot reach $master:$port: Connection refused"

fresh "different configurations"
start a 0 different -- optim.lr=0.5
start b 1 different
text="rank 1 differs from rank 0: rank 1 has optim.lr=0.003, rank 0 has optim.lr=0.5"
ends a 2 "$text"
ends b 2 "$text"
echo "all as it should be ($SECONDS s)"
