# shellcheck shell=bash source-path=SCRIPTDIR
# A farm for one script: built, started on a free port with a state folder of its own, given its images, and taken down.
# Sourced, never run.

# shellcheck source=images.sh
source "$(dirname "${BASH_SOURCE[0]}")/images.sh"

# How it is compiled: quickly, as for the tests and the demo, or as people run it, which is what `ci/bench` measures.
ANDON_PROFILE=${ANDON_PROFILE:-dev}
ANDON_BUILT=$ANDON_TARGET/${ANDON_PROFILE/#dev/debug}
ANDON=$ANDON_BUILT/andon
# What cargo is asked for. `ci/test` asks for all at once: a second build with other targets would have other features of
# what both need, and compile much of it again.
ANDON_TARGETS=(-p andon --bin andon)

# build_andon: the one binary that is client, coordinator, gateway and worker; unless ANDON_IS_BUILT says that it is there.
build_andon() {
  local start
  if [[ -n ${ANDON_IS_BUILT:-} ]]; then return 0; fi
  start=$(now)
  say 'building andon (cargo; the first time takes some minutes)'
  (cd "$ANDON_ROOT" && cargo build --locked --profile "$ANDON_PROFILE" "${ANDON_TARGETS[@]}") || die 'andon does not build'
  say "andon built ($(since "$start"))"
}

# Everything that has to be there before a farm can run a sample. The compiler does not wait for packages and images, nor
# they for it.
prepare_machine() {
  local build
  ensure_commands git=git python3=python3 strip=binutils
  ensure_rust
  build_andon &
  build=$!
  ensure_docker
  ensure_base trixie || die "no base image $BASE_IMAGE"
  ensure_mysql
  wait "$build" || exit 1
  ensure_worker_image "$ANDON"
}

# farm_up STATE WORKERS LANES [FLAG…]: an older farm of the same state folder goes first, with all that it had.
farm_up() {
  local state=$1 workers=$2 lanes=$3
  shift 3
  export ANDON_STATE=$state
  farm_down "$state"
  mkdir -p "$(dirname "$state")"
  "$ANDON" up --state "$state" --workers "$workers" --lanes "$lanes" --image "$WORKER_IMAGE" \
    --listen "127.0.0.1:$(free_port)" "$@" || die "the farm did not start; logs are in $state"
}

# farm_with_images STATE IMAGE…: a farm without workers that has these images, and is down: another can begin with its coordinator.
farm_with_images() {
  local state=$1
  shift
  farm_up "$state" 0 1
  "$ANDON" image add "$@" || die "the farm in $state did not take the images"
  "$ANDON" down --state "$state" || die "the farm in $state did not end"
  unset ANDON_STATE
}

farm_down() {
  if [[ -d $1 && -x $ANDON ]]; then "$ANDON" down --state "$1" --purge || warn "andon down --purge ended with $?"; fi
}

# keep_logs STATE FOLDER: what the coordinator and the boxes of a farm have said so far.
keep_logs() {
  local farm box
  mkdir -p "$2"
  cp -r "$1/logs/." "$2/" 2>/dev/null || true
  farm=$(json_of "$1/farm.json" "d['farm']" 2>/dev/null) || return 0
  for box in $(docker ps -a --filter "name=^andon-$farm-" --format '{{.Names}}'); do
    docker logs "$box" >"$2/$box.log" 2>&1 || true
  done
}

# farm_images: the sample's images for workers that can reach no registry.
farm_images() { "$ANDON" image add "$SAMPLE_DB_IMAGE" "$BASE_IMAGE"; }

# json_of FILE EXPRESSION: a Python expression over `d`, the JSON document in FILE.
json_of() { python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"; }

# run_of_commit PROJECT COMMIT SECONDS: the number of the run that a push has started.
run_of_commit() {
  local project=$1 commit=$2 end=$((SECONDS + $3)) list=$ANDON_CI_DIR/list.json run
  while ((SECONDS < end)); do
    if "$ANDON" list --project "$project" --json >"$list" 2>/dev/null; then
      run=$(json_of "$list" "next((r['run'] for r in (d['runs'] if isinstance(d, dict) else d) if r['commit'] == '$commit' and not r['rerun_of']), '')")
      if [[ -n $run ]]; then
        echo "$run"
        return 0
      fi
    fi
    sleep 0.2
  done
  return 1
}

# host_inventory: what a farm could leave behind on this machine. Images stay: they are the cache of the next time.
host_inventory() {
  local loop process words
  {
    docker ps -a --no-trunc --format 'container {{.Names}} {{.ID}}'
    docker volume ls --format 'volume {{.Name}}'
    docker network ls --no-trunc --format 'network {{.Name}} {{.ID}}'
    sed -E 's/^[0-9]+ [0-9]+ [^ ]+ ([^ ]+) ([^ ]+).* - ([^ ]+) ([^ ]+) .*/mount \2 \3 \4/' /proc/self/mountinfo
    for loop in /sys/block/loop*/loop/backing_file; do
      if [[ -e $loop ]]; then echo "loop $(cat "$loop")"; fi
    done
    # Processes by what they run: `andon` as client, server or worker, nested engines and their containers. One that has
    # ended and waits for its parent to hear of it has no words any more.
    for process in /proc/[0-9]*; do
      case $(cat "$process/comm" 2>/dev/null || true) in
      andon | dockerd | containerd*)
        words=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null || true)
        if [[ -n $words ]]; then echo "process $words"; fi
        ;;
      esac
    done
  } | LC_ALL=C sort
}

# left_behind BEFORE AFTER: what is new and bears Andon's name, or is a volume of the farm's boxes (one a line in
# BEFORE.volumes). Fails where there is any; what else is new is somebody else's, and is said.
left_behind() {
  local ours others
  ours=$(comm -13 "$1" "$2" | grep -iE 'andon' || true; comm -13 "$1" "$2" | grep -xFf "$1.volumes" || true)
  others=$(comm -13 "$1" "$2" | grep -ivE 'andon' | grep -vxFf "$1.volumes" || true)
  if [[ -n $others ]]; then say "new on this machine, and not this farm's:" && indent <<<"$others"; fi
  if [[ -z $ours ]]; then return 0; fi
  warn 'left behind:'
  indent <<<"$ours" >&2
  return 1
}

# box_volumes FILE: the volumes of this engine's containers of the worker image, as the inventory writes them.
box_volumes() {
  docker ps -aq --filter "ancestor=$WORKER_IMAGE" |
    xargs -r docker inspect -f '{{range .Mounts}}{{if eq .Type "volume"}}volume {{.Name}}{{println}}{{end}}{{end}}' |
    sed '/^$/d' >"$1"
  # An empty list of patterns would match nothing, an empty file of them everything.
  [[ -s $1 ]] || echo 'volume none' >"$1"
}
