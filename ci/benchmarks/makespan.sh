# shellcheck shell=bash
# shellcheck disable=SC2154 # ci/bench sets bench, page, python and quick.
# Sourced by ci/bench: the real core in virtual time beside other schedulers, with the same durations.

step 'Building the program that drives the core'
ensure_rust
(cd "$ANDON_ROOT" && cargo build --locked --release -p andon-core --example makespan) || die 'it does not build'

step 'Makespans'
python_with pytest pytest-split pytest-xdist
seeds=5
if [[ -n $quick ]]; then seeds=1; fi
"$python" "$ANDON_ROOT/ci/benchmarks/makespan.py" --program "$ANDON_TARGET/release/examples/makespan" --seeds "$seeds" \
  --page "$page"
