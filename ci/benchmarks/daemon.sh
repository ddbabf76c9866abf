# shellcheck shell=bash source-path=SCRIPTDIR
# shellcheck disable=SC2154 # ci/bench sets bench, page, python and quick.
# Sourced by ci/bench: a nested daemon from nothing to its first container, and its images without loading them.

box=andon-bench-daemon-$$
volume=$box

step 'This machine'
prepare_machine
(cd "$ANDON_ROOT" && cargo build --locked --profile "$ANDON_PROFILE" -p andon-worker --example nested) || die 'the tool does not build'
at_the_end docker rm -f -v "$box" "$box-outer"
at_the_end docker volume rm -f "$volume"

rounds=10
if [[ -n $quick ]]; then rounds=3; fi
mkdir -p "$bench/tool"
strip -o "$bench/tool/nested" "$ANDON_BUILT/examples/nested"
docker save -o "$bench/tool/image.tar" "$SAMPLE_DB_IMAGE"

# A box has what `andon up` would give it: everything that the host has.
missing=()
if ! docker run --rm --privileged --entrypoint true "$WORKER_IMAGE" >/dev/null 2>&1; then missing=(--drop SYS_RESOURCE); fi
step "$rounds rounds in worker boxes"
python3 "$ANDON_ROOT/ci/benchmarks/daemon.py" --box "$box" --volume "$volume" --box-image "$WORKER_IMAGE" \
  --image "$SAMPLE_DB_IMAGE" --tool "$bench/tool" --rounds "$rounds" --page "$page" "${missing[@]}"
