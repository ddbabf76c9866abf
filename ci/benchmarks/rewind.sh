# shellcheck shell=bash source-path=SCRIPTDIR
# shellcheck disable=SC2154 # ci/bench sets bench, page, python and quick.
# Sourced by ci/bench: rewinds a live seeded server after each of several kinds of tests, and compares every byte.

state=$bench/state

step 'This machine'
prepare_machine
at_the_end farm_down "$state"

# Fewer for a first look: the page says how many. A restarted server takes some seconds to be as warm as one that is rewound.
compared=${ANDON_BENCH_ROUNDS:-1000} restarted=8
timed=$((compared < 200 ? compared : 200))
if [[ -n $quick ]]; then compared=20 timed=20 restarted=2; fi

step "$compared rewinds of each workload with every byte compared, and $timed without"
python3 "$ANDON_ROOT/ci/benchmarks/rewind/measure.py" --compared "$compared" --timed "$timed" --restarted "$restarted" --page "$page" \
  --andon "$ANDON" --worker "$WORKER_IMAGE" --image "$SAMPLE_DB_IMAGE" --shop "$ANDON_ROOT/ci/sample/shop" \
  --state "$state" --scratch "$bench/scratch"
