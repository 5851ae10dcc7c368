#!/usr/bin/env bash
# Tests and measures convpc on the NVIDIA GPU of this machine, in nine minutes at most, from the folder that it lies in (made
# by `cargo xtask gpu pack`). Needs the driver; nvcc, compute-sanitizer, ncu and python3 with PyTorch for the parts that use
# them: a part that fails does not stop the others, and one whose tool is missing is left out.
#
#   ./run.sh [--out FOLDER] [PART...]      all parts, in the order of PARTS below, or those named
#
# FOLDER (default: results) receives DEVICE-DATE.json, DEVICE-DATE.md and run.log.
set -uo pipefail
start=$(date +%s)
caller=$PWD
cd "$(dirname "$0")" || exit 1

# Name and time limit in seconds. Nothing starts, and nothing runs on, after LAST seconds.
PARTS=(device:20 tests:120 ceilings:45 bench:45 compare:75 peers:110 memcheck:40 racecheck:45 ncu:45 criterion:75)
LAST=525
# Exit status of a part that lacks what it needs.
LEFT_OUT=77
# After these seconds the part peers starts no more and stops what runs: less than its limit.
PEERS_SECONDS=100

fail() { echo "$*" >&2; exit 1; }
left_out() { echo "left out: $*" >&2; exit "$LEFT_OUT"; }
need() { command -v "$1" >/dev/null || left_out "$1 is not on the PATH"; }
pack() { [ -e "$1" ] || left_out "the pack has no $1: $2"; }

# What the parts do. Each runs in a process of its own, with $WORK for its files.

part_device() {
  need nvidia-smi
  nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap,clocks.max.sm,clocks.max.mem,power.limit --format=csv,noheader,nounits |
    head -n 1 | grep . || fail "nvidia-smi sees no GPU"
}

# The conformance tests, told which device to take, the first, and where SPFlow's golden numbers are.
part_tests() {
  pack tests "it was made before the testsuite had tests of the CUDA backend"
  need nvidia-smi
  export CONVPC_GPU_TESTS=0 CONVPC_GOLDEN=$PWD/golden
  local status=0 test
  for test in tests/*; do
    echo "== $test"
    "$test" --nocapture || status=1
  done
  # A test that was not asked passes too.
  ! grep -q "no GPU was asked for" "$WORK/tests.out" || fail "the tests did not take the GPU"
  return "$status"
}

part_ceilings() {
  need nvcc
  nvcc -O3 -std=c++17 -arch=native ceilings.cu -o "$WORK/ceilings" && "$WORK/ceilings"
}

# The peers' circuits: lines of JSON for the GPU in each precision and for this machine's CPU.
part_bench() {
  local status=0 precision
  for precision in f32 tf32 bf16; do
    ./bench/peers --backend cuda --precision "$precision" --threads "$(nproc)" || status=1
  done
  ./bench/peers --backend cpu --threads "$(nproc)" || status=1
  return "$status"
}

# A table of many circuits, GPU beside CPU and beside the ceilings where those were measured.
part_compare() {
  need nvidia-smi
  local ceilings=()
  [ ! -s "$WORK/ceilings.out" ] || ceilings=(--ceilings "$WORK/ceilings.out")
  ./bench/compare --runs 3 "${ceilings[@]}"
}

part_criterion() {
  need nvidia-smi
  CRITERION_HOME=$WORK/criterion ./bench/backends --bench --noplot --warm-up-time 0.2 --measurement-time 0.5 cuda
  [ -d "$WORK/criterion" ] || fail "nothing was measured on the GPU"
}

# Other libraries on the same circuits, with the wheels of the pack; those that this machine lacks are left out.
part_peers() {
  need python3
  local wheel
  for wheel in wheels/*.whl; do
    [ ! -e "$wheel" ] || python3 -m zipfile -e "$wheel" "$WORK/wheels"
  done
  PYTHONPATH=$WORK/wheels${PYTHONPATH:+:$PYTHONPATH} python3 peers/run.py --device cuda --threads "$(nproc)" \
    --python python3 --convpc ./bench/peers --folder "$WORK/peers" --runs 3 --seconds "$PEERS_SECONDS"
}

# A tiny model with every kind of node that a command line can ask for, under the memory and race checkers.
part_memcheck() { sanitize memcheck; }
part_racecheck() { sanitize racecheck; }

sanitize() {
  need compute-sanitizer
  need python3
  pack convpc "it was made without the command"
  local data=$WORK/$1.npy model=$WORK/$1.safetensors status=0 precision
  python3 - "$data" <<'PYTHON'
import random, sys
random.seed(1)
rows, pixels = 37, 64
header = "{'descr': '|u1', 'fortran_order': False, 'shape': (%d, %d), }" % (rows, pixels)
header += " " * (63 - (10 + len(header)) % 64) + "\n"
with open(sys.argv[1], "wb") as file:
    file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    file.write(bytes(random.randrange(256) for _ in range(rows * pixels)))
PYTHON
  ./convpc train --data "$data" --leaf normal --height 8 --width 8 --channels 20 --depth 2 --epochs 1 \
    --backend cpu --force -o "$model" || return 1
  local tool=$1
  checked() {
    local log=$WORK/$tool.log
    echo "== $*"
    compute-sanitizer --tool "$tool" --error-exitcode 9 "$@" >"$log" 2>&1 || status=1
    cat "$log"
  }
  for precision in f32 tf32 bf16; do
    checked ./convpc score "$model" --data "$data" --backend cuda --precision "$precision"
  done
  checked ./convpc train --data "$data" --leaf normal --height 8 --width 8 --channels 20 --depth 2 --epochs 1 \
    --backend cuda -o "$WORK/$tool-trained.safetensors"
  checked ./convpc train --data "$data" --leaf categorical --shared-leaves --algorithm minibatch-em --height 8 --width 8 \
    --channels 20 --depth 3 --epochs 1 --backend cuda -o "$WORK/$tool-shared.safetensors"
  checked ./convpc sample "$model" -n 5 -o "$WORK/$tool-samples.npy" --backend cuda
  checked ./convpc complete "$model" --data "$data" --mask left --backend cuda -o "$WORK/$tool-completed.npy"
  return "$status"
}

# The kernels of two passes over the middle circuit.
part_ncu() {
  need ncu
  ncu --csv --page details --section SpeedOfLight --section Occupancy --section LaunchStats --clock-control none \
    --launch-count 200 ./bench/peers --backend cuda --only mnist64 --runs 1
}

if [ "${1:-}" = --part ]; then
  "part_$2"
  exit
fi

out=results
if [ "${1:-}" = --out ]; then
  case ${2:?--out needs a folder} in /*) out=$2 ;; *) out=$caller/$2 ;; esac
  shift 2
fi
for name in "$@"; do
  case " ${PARTS[*]} " in *" $name:"*) ;; *) fail "there is no part $name; the parts: ${PARTS[*]%%:*}" ;; esac
done
mkdir -p "$out"
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT

: >"$WORK/status.tsv"
for part in "${PARTS[@]}"; do
  name=${part%:*}
  [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
  began=$(date +%s)
  limit=$((start + LAST - began))
  [ "$limit" -lt "${part#*:}" ] || limit=${part#*:}
  echo "=== $name"
  if [ "$limit" -lt 5 ]; then
    status=out-of-time
    echo "no time is left" | tee "$WORK/$name.err"
  else
    timeout --kill-after=5 "$limit" "$BASH" "./$(basename "$0")" --part "$name" >"$WORK/$name.out" 2>"$WORK/$name.err"
    status=$?
    case $status in
      0) status=ok ;;
      124 | 137) status=time-limit ;;
      "$LEFT_OUT") status=left-out ;;
      *) status=failed ;;
    esac
    tail -n 40 "$WORK/$name.out"
    tail -n 15 "$WORK/$name.err"
  fi
  echo "=== $name: $status after $(($(date +%s) - began)) s"
  printf '%s\t%s\t%s\n' "$name" "$status" "$(($(date +%s) - began))" >>"$WORK/status.tsv"
done

for file in "$WORK"/*.out "$WORK"/*.err; do
  echo "##### $(basename "$file")"
  cat "$file"
done >"$out/run.log" 2>/dev/null
command -v python3 >/dev/null || fail "python3 is not on the PATH: $out/run.log has all that was printed"
python3 collect.py "$WORK" pack.json "$out"
