#!/usr/bin/env bash
# Runs the CUDA tests under compute-sanitizer, each test in a process of its own, and tells which are
# not clean.
#   bash tests/core/cuda/sanitize.sh [BUILD_DIR] [TOOL …]      tools: memcheck initcheck, and racecheck in a build for it
# FILTER: gtest's; by default all CUDA tests but those of the memory cache, which is off here. JOBS: tests at once (4; under racecheck the sLSTM's
# clusters wait for each other in spinning, and many at once hardly come on). LIMIT: seconds a test (300).
#
# What compute-sanitizer 2025.3 does not see, each shown by a kernel of a few lines:
# racecheck: that lane 0 of a warp, arriving at an mbarrier behind __syncwarp(), arrives for the others too. It then
#   reports all that Hopper's mLSTM kernels pass on in shared memory. Configure the build with -DCAROUSEL_RACECHECK=ON,
#   where every lane arrives for itself: the same order, in terms that it knows.
# initcheck: what the copy engine writes to device memory (cp.async.bulk), as some of cuBLASLt's kernels do too. We name it
#   through NVTX (core/cuda/checkers.h); CudaMlstmChunkwise.EveryElementIsWritten and the products' tests show that it is right.
set -u
build=${1:-build/cuda-release}
shift || true
tools=("$@")
for_racecheck=$(grep -cs "^CAROUSEL_RACECHECK:BOOL=ON" "$build/CMakeCache.txt")
[ ${#tools[@]} -gt 0 ] || { tools=(memcheck initcheck); [ "$for_racecheck" = 0 ] || tools+=(racecheck); }
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
if [[ " ${tools[*]} " == *" racecheck "* && $for_racecheck = 0 ]]; then
  echo "racecheck needs a build with -DCAROUSEL_RACECHECK=ON, which $build is not" >&2
  exit 2
fi
[ -x "$sanitizer" ] || { echo "compute-sanitizer was not found: it is part of the CUDA toolkit" >&2; exit 2; }
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Every block its own and uninitialised: what lies beyond a tensor's end is seen to be beyond it. And tests of much work
# take smaller cases (tests/support/checker.h).
export CAROUSEL_MEMORY_CHECK=1 OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
export SANITIZER=$sanitizer LIMIT=${LIMIT:-300} LOGS=$logs

# The tests of a program, one a line: "program suite.test".
list() {
  local suite=""
  "$1" --gtest_list_tests --gtest_filter="${FILTER:-*Cuda*-*RepeatedStepsReach*:CudaPlan*}" | while IFS= read -r line; do
    line=${line%%#*}
    case $line in
      "  "*) echo "$1 $suite$(echo "$line" | tr -d ' ')" ;;
      *.*) suite=$(echo "$line" | tr -d ' ') ;;
    esac
  done
}

check() {
  local tool=$1 program=$2 test=$3 log begin=$SECONDS status=0
  log=$LOGS/$tool-${test//\//-}.log
  timeout "$LIMIT" "$SANITIZER" --tool "$tool" --error-exitcode 99 --report-api-errors no \
    --nvtx yes --print-limit 20 \
    "$program" --gtest_filter="$test" >"$log" 2>&1 || status=$?
  local result=clean
  [ $status -eq 0 ] || result="NOT CLEAN ($status)"
  [ $status -ne 124 ] || result="TIMED OUT"
  echo "$tool $test: $result, $((SECONDS - begin)) s"
  [ $status -eq 0 ] || { touch "$LOGS/failed"; grep -E '=========|Failure|error:' "$log" | head -40; }
}
export -f check

for tool in "${tools[@]}"; do
  for program in "$build"/tests/{core,layers,optim,train}_test; do
    [ -x "$program" ] && list "$program"
  done | xargs -P "${JOBS:-4}" -L 1 bash -c 'check "$0" "$1" "$2"' "$tool"
done
[ ! -e "$logs/failed" ] && echo "clean"
