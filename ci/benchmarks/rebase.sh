# shellcheck shell=bash source-path=SCRIPTDIR
# shellcheck disable=SC2154 # ci/bench sets bench, fresh, page, python and quick.
# Sourced by ci/bench: puts a live seeded database back to its baseline, with Andon's drivers and without Andon.

# shellcheck source=../lib/postgres.sh
source "$ANDON_ROOT/ci/lib/postgres.sh"
state=$bench/state

step 'This machine'
prepare_machine
python_with testcontainers pymysql cryptography pg8000 redis
ensure_packages docker-compose || warn 'docker-compose cannot be had: its row is left out'
at_the_end farm_down "$state"
at_the_end stop_postgres
start_postgres

# Fewer for a first look: the page says how many.
rounds=${ANDON_BENCH_ROUNDS:-200} cycles=${ANDON_BENCH_CYCLES:-4}
if [[ -n $quick ]]; then rounds=8 cycles=2; fi

# What was measured of an older Andon says nothing of this one.
kept=${page%.md}.json worker=$(git -C "$ANDON_ROOT" rev-parse --short HEAD:worker)
if [[ -n $fresh || -n $quick ]]; then rm -f "$kept"; fi

step "$rounds rounds of each way, in $cycles cycles"
"$python" "$ANDON_ROOT/ci/benchmarks/rebase/measure.py" --rounds "$rounds" --cycles "$cycles" --page "$page" \
  --andon "$ANDON" --worker "$WORKER_IMAGE" --image "$SAMPLE_DB_IMAGE" --shop "$ANDON_ROOT/ci/sample/shop" --three "$ANDON_ROOT/tests/fixtures/many" \
  --state "$state" --scratch "$bench/scratch" --postgres "$ANDON_TEST_POSTGRES" \
  --kept "$kept" --tree "$worker"
