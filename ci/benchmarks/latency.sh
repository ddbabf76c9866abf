# shellcheck shell=bash source-path=SCRIPTDIR
# shellcheck disable=SC2154 # ci/bench sets bench, page, python and quick.
# Sourced by ci/bench: from a push to its first test, and a rerun of one test, beside a job that does the same by hand.
state=$bench/state

step 'This machine'
prepare_machine
python_with testcontainers pymysql cryptography
at_the_end farm_down "$state"

rounds=${ANDON_BENCH_ROUNDS:-40}
if [[ -n $quick ]]; then rounds=4; fi

step "$rounds pushes and reruns, by Andon and by hand in turn"
"$python" "$ANDON_ROOT/ci/benchmarks/latency/measure.py" --andon "$ANDON" --worker "$WORKER_IMAGE" --image "$SAMPLE_DB_IMAGE" \
  --shop "$ANDON_ROOT/ci/sample/shop" --state "$state" --scratch "$bench/scratch" --page "$page" --rounds "$rounds"
