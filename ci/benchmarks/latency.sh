# shellcheck shell=bash source-path=SCRIPTDIR
# shellcheck disable=SC2154 # ci/bench sets bench, page, python and quick.
# Sourced by ci/bench: from a push to its first test, and a rerun of one test, beside a job that does the same by hand.
WORKER_IMAGE=${ANDON_WORKER_IMAGE:-$WORKER_IMAGE}
state=$bench/state

finish() {
  local code=$?
  trap - EXIT INT TERM
  farm_down "$state" >/dev/null 2>&1 || true
  exit "$code"
}

step 'This machine'
prepare_machine
python_with testcontainers pymysql cryptography
trap finish EXIT
trap 'exit 130' INT TERM

rounds=${ANDON_BENCH_ROUNDS:-40}
if [[ -n $quick ]]; then rounds=4; fi

step "$rounds pushes and reruns, by Andon and by hand in turn"
"$python" "$ANDON_ROOT/ci/benchmarks/latency/measure.py" --andon "$ANDON" --worker "$WORKER_IMAGE" --image "$SAMPLE_DB_IMAGE" \
  --shop "$ANDON_ROOT/ci/sample/shop" --state "$state" --scratch "$bench/scratch" --page "$page" --rounds "$rounds"
