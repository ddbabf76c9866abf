# shellcheck shell=bash
# shellcheck disable=SC2154 # ci/bench sets bench, page, python and quick.
# Sourced by ci/bench: a real coordinator under a load of played workers, in processes of their own on the same cores.

step 'Building the coordinator and its load, optimised'
ensure_rust
ensure_commands python3=python3
(cd "$ANDON_ROOT" && cargo build --locked --release -p andon-coordinator --example load)
# A session is a connection on either side.
ulimit -n 16384

seconds=15
if [[ -n $quick ]]; then seconds=4; fi
python3 "$ANDON_ROOT/ci/benchmarks/dispatch.py" --load "$ANDON_TARGET/release/examples/load" --state "$bench/state" \
  --seconds "$seconds" --page "$page"
