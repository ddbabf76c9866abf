# shellcheck shell=bash source-path=SCRIPTDIR
# shellcheck disable=SC2154 # ci/bench sets bench, page, python and quick.
# Sourced by ci/bench: whole suites with a pristine database before every test (the shop) and every class (SQLAlchemy), on Andon and with
# what one would do without.
state=$bench/state

step 'This machine'
prepare_machine
python_with testcontainers pytest pymysql cryptography greenlet typing-extensions
at_the_end farm_down "$state"
if [[ ! -d $bench/sqlalchemy ]]; then "$ANDON_ROOT/ci/sample/sqlalchemy/fetch" "$bench/sqlalchemy"; fi

# The peers run a sample, which the page says: tests, classes, and how often all take turns.
sample=${ANDON_BENCH_SAMPLE:-120} classes=${ANDON_BENCH_CLASSES:-40} cycles=${ANDON_BENCH_CYCLES:-2} flags=()
if [[ -n $quick ]]; then sample=12 classes=4 cycles=1 flags=(--quick); fi

step "The shop's tests and SQLAlchemy's in $cycles cycles; of the peers $sample tests and $classes classes"
"$python" "$ANDON_ROOT/ci/benchmarks/shop/measure.py" --andon "$ANDON" --worker "$WORKER_IMAGE" --image "$SAMPLE_DB_IMAGE" \
  --shop "$ANDON_ROOT/ci/sample/shop" --sqlalchemy "$bench/sqlalchemy" --state "$state" --scratch "$bench/scratch" --page "$page" \
  --sample "$sample" --classes "$classes" --cycles "$cycles" "${flags[@]}"
