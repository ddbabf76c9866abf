# shellcheck shell=bash source-path=SCRIPTDIR
# shellcheck disable=SC2154 # ci/bench sets bench, page, python and quick.
# Sourced by ci/bench: a store with five million attempts, and how long lists and runs take to read.

# shellcheck source=../lib/postgres.sh
source "$ANDON_ROOT/ci/lib/postgres.sh"

step 'Building the filler, optimised; starting PostgreSQL'
ensure_rust
ensure_commands python3=python3
at_the_end stop_postgres
start_postgres
(cd "$ANDON_ROOT" && cargo build --locked --release -p andon-coordinator --example fill)

attempts=5000000
if [[ -n $quick ]]; then attempts=100000; fi
psql() { "$POSTGRES_TOOLS/psql" -q "$ANDON_TEST_POSTGRES" -c "$1"; }
rm -rf "$bench/farm.db"*
psql 'DROP DATABASE IF EXISTS bench WITH (FORCE)'
psql 'CREATE DATABASE bench'
"$ANDON_TARGET/release/examples/fill" "attempts=$attempts" "store=$bench/farm.db" >"$bench/sqlite.json"
"$ANDON_TARGET/release/examples/fill" "attempts=$attempts" "store=${ANDON_TEST_POSTGRES%/*}/bench" >"$bench/postgres.json"
psql 'DROP DATABASE bench WITH (FORCE)'
size=$(du -m "$bench/farm.db" | cut -f1)
rm -rf "$bench/farm.db"*
python3 "$ANDON_ROOT/ci/benchmarks/store.py" "$bench/sqlite.json" "$bench/postgres.json" "$size" "$page"
