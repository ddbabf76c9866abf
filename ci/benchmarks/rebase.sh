# shellcheck shell=bash source-path=SCRIPTDIR
# shellcheck disable=SC2154 # ci/bench sets bench, page, python and quick.
# Sourced by ci/bench: puts a live seeded database back to its baseline, with Andon's drivers and without Andon.

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

rounds=40
if [[ -n $quick ]]; then rounds=5; fi

# andon_rounds DRIVER: as many tests of the shop as rounds, each after a rebase, on one lane of one worker: nothing else
# runs on the machine meanwhile, as nothing else does while the peers are measured.
andon_rounds() {
  local driver=$1 work=$bench/shop-$1 code=0
  step "Andon: $driver"
  farm_up "$state" 1 1 --driver "$driver"
  farm_images
  rm -rf "$work"
  cp -r "$ANDON_ROOT/ci/sample/shop" "$work"
  find "$work" -name __pycache__ -prune -exec rm -rf {} +
  sed -i "s#$MYSQL_IMAGE#$SAMPLE_DB_IMAGE#" "$work/compose.yaml"
  python3 "$ANDON_ROOT/ci/benchmarks/shorten.py" "$work" "$rounds"
  git -C "$work" init -q -b main
  git -C "$work" add -A
  git -C "$work" -c user.name=bench -c user.email=bench@andon.invalid commit -q -m "the shop, shortened"
  (cd "$work" && "$ANDON" run) || code=$?
  ((code == 0)) || die "the run ended with exit code $code"
  "$ANDON" show --json >"$bench/$driver.json"
  farm_down "$state" >/dev/null
}

andon_rounds restart
andon_rounds recreate

step 'Without Andon'
"$python" "$ANDON_ROOT/ci/benchmarks/rebase.py" --image "$SAMPLE_DB_IMAGE" --rounds "$rounds" \
  --shop "$ANDON_ROOT/ci/sample/shop" --andon "$bench/restart.json" "$bench/recreate.json" --page "$page"
