# shellcheck shell=bash
# shellcheck disable=SC2154 # ci/bench sets bench, page, python, quick and fresh.
# Sourced by ci/bench: pages and the JSON API of a real coordinator over a store with five million attempts, and what its figures find.

step 'Building the coordinator and its history, optimised'
ensure_rust
ensure_commands python3=python3
(cd "$ANDON_ROOT" && cargo build --locked --release -p andon-coordinator --example pages)

options=()
if [[ -n $quick ]]; then options=(commits=100 tests=40 asked=20 scored=100); fi
# A folder that somebody names is kept, and goes on where it was stopped; 2 GB else are not left behind.
state=${ANDON_BENCH_STATE:-$bench/state}
if [[ -n $fresh || -n $quick ]]; then rm -rf "$bench/state"; fi
"$ANDON_TARGET/release/examples/pages" "state=$state" "${options[@]}" >"$bench/pages.json"
if [[ -z ${ANDON_BENCH_STATE:-} ]]; then rm -rf "$state"; fi
python3 "$ANDON_ROOT/ci/benchmarks/pages.py" "$bench/pages.json" "$page"
