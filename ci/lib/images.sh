# shellcheck shell=bash source-path=SCRIPTDIR
# The images that a farm and its sample projects need, each made once and again only when what it is made from changed.
# Sourced, never run. Every image that is built here carries the digest of its content as a label.

# shellcheck source=machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"

PULL_SECONDS_MAX=${ANDON_PULL_SECONDS_MAX:-60}
CONTENT_LABEL=dev.andon.content

WORKER_IMAGE=andon-worker:dev
MYSQL_IMAGE=andon-sample/mysql:9.7
MARIADB_IMAGE=andon-sample/mariadb:11.8
BASE_IMAGE=debian:trixie-slim
TEST_SUITE_IMAGE=andon-tests/suite:1
VANDAL_IMAGE=andon-tests/vandal:1
AARCH64_IMAGE=andon-tests/aarch64:1

image_id() { docker image inspect -f '{{.Id}}' "$1" 2>/dev/null || true; }
image_content() { docker image inspect -f "{{index .Config.Labels \"$CONTENT_LABEL\"}}" "$1" 2>/dev/null || true; }

# base_is_good IMAGE: pulled, or made by this very recipe.
base_is_good() {
  local recipe
  [[ -n $(image_id "$1") ]] || return 1
  recipe=$(docker image inspect -f '{{index .Config.Labels "dev.andon.base"}}' "$1" 2>/dev/null || true)
  [[ -z $recipe || $recipe == "$(sha256sum <"$ANDON_ROOT/ci/images/base/make" | cut -c 1-64)" ]]
}

# ensure_base SUITE: `debian:SUITE-slim`, from the registry where one answers, else from packages.
ensure_base() {
  local suite=$1 image=debian:$1-slim start
  if base_is_good "$image"; then return 0; fi
  start=$(now)
  if [[ -z ${ANDON_NO_REGISTRY:-} ]] &&
    timeout "$PULL_SECONDS_MAX" docker pull -q "$image" >"$ANDON_CI_DIR/pull.log" 2>&1 </dev/null; then
    say "$image pulled ($(since "$start"))"
    return 0
  fi
  say "$image cannot be pulled; making it with mmdebstrap"
  ensure_commands mmdebstrap=mmdebstrap
  [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || ensure_packages debian-archive-keyring
  start=$(now)
  quietly "$ANDON_CI_DIR/base-$suite.log" base_as_root "$suite" "$image" || return 1
  say "$image made ($(since "$start"))"
}

# mmdebstrap needs root or user namespaces; root works everywhere.
base_as_root() { as_root env "ANDON_DEBIAN_MIRROR=${ANDON_DEBIAN_MIRROR:-}" "DOCKER_HOST=${DOCKER_HOST:-}" "$ANDON_ROOT/ci/images/base/make" "$@"; }

# build_image IMAGE CONTEXT DOCKERFILE PARENT: unless it was built from the very same files on the same parent.
# A name without a slash or colon would be looked up in a registry; all of ours are local.
build_image() {
  local image=$1 context=$2 dockerfile=$3 parent=$4 content start before
  content=$( (
    cd "$context" || exit
    # Names, modes and contents, in an order that no locale changes.
    find . -type f -printf '%P %m\0' | LC_ALL=C sort -z | tr '\0' '\n'
    find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    printf '%s\n%s\n' "$dockerfile" "$(image_id "$parent")"
  ) | sha256sum | cut -c 1-64)
  if [[ $(image_content "$image") == "$content" ]]; then
    say "$image is up to date"
    return 0
  fi
  start=$(now)
  before=$(image_id "$image")
  say "building $image"
  # The host's network: no bridge, NAT or resolver of the engine is needed for apt.
  quietly "$ANDON_CI_DIR/build-$(tr '/:' '--' <<<"$image").log" \
    docker build --force-rm --network host --label "$CONTENT_LABEL=$content" -t "$image" -f "$context/$dockerfile" "$context" ||
    return 1
  # Its predecessor would stay without a name; where a container still has it, it does.
  if [[ -n $before && $before != "$(image_id "$image")" ]]; then docker rmi "$before" >/dev/null 2>&1 || true; fi
  say "$image built ($(since "$start"))"
}

# ensure_mysql: the sample's database image. Real MySQL is in Debian sid alone; where that cannot be had, or where
# ANDON_SAMPLE_DB=mariadb says so, MariaDB of trixie. Sets SAMPLE_DB_IMAGE.
ensure_mysql() {
  local context=$ANDON_ROOT/ci/sample/images
  case ${ANDON_SAMPLE_DB:-auto} in
  auto | mysql | mariadb) ;;
  *) die "ANDON_SAMPLE_DB=$ANDON_SAMPLE_DB: must be auto, mysql or mariadb" ;;
  esac
  if [[ ${ANDON_SAMPLE_DB:-auto} != mariadb ]]; then
    if ensure_base sid && build_image "$MYSQL_IMAGE" "$context" mysql.Dockerfile debian:sid-slim; then
      SAMPLE_DB_IMAGE=$MYSQL_IMAGE
      return 0
    fi
    [[ ${ANDON_SAMPLE_DB:-auto} == auto ]] || die "no MySQL image (ANDON_SAMPLE_DB=mysql forbids MariaDB)"
    warn 'no MySQL from Debian sid; the sample uses MariaDB'
  fi
  ensure_base trixie || die "no base image $BASE_IMAGE"
  build_image "$MARIADB_IMAGE" "$context" mariadb.Dockerfile "$BASE_IMAGE" || die "could not build $MARIADB_IMAGE"
  # Read by whoever sources this file.
  # shellcheck disable=SC2034
  SAMPLE_DB_IMAGE=$MARIADB_IMAGE
}

# ensure_worker_image BINARY: the worker box with this build of `andon`, without its debug sections.
ensure_worker_image() {
  local binary=$1 stage=$ANDON_CI_DIR/worker-image
  ensure_base trixie || die "no base image $BASE_IMAGE"
  rm -rf "$stage"
  mkdir -p "$stage"
  cp -r "$ANDON_ROOT/ci/images/worker/." "$stage/"
  strip -o "$stage/andon" "$binary" || die "could not strip $binary (binutils)"
  chmod 755 "$stage/andon"
  build_image "$WORKER_IMAGE" "$stage" Dockerfile "$BASE_IMAGE" || die "could not build $WORKER_IMAGE"
  timeout 30 docker run --rm --network none --entrypoint andon "$WORKER_IMAGE" --version >"$ANDON_CI_DIR/worker-version.log" 2>&1 ||
    die "the andon of this machine does not run in $WORKER_IMAGE: $(tail -n 1 "$ANDON_CI_DIR/worker-version.log")"
}

# What the end-to-end tests of one kind share is made once, here: in each test's own farm the packages took longer than the tests.
ensure_test_suite_image() {
  ensure_base trixie || die "no base image $BASE_IMAGE"
  build_image "$TEST_SUITE_IMAGE" "$ANDON_ROOT/tests/fixtures/suite" Dockerfile "$BASE_IMAGE" || die "could not build $TEST_SUITE_IMAGE"
}

# The tools of all vandals, and the servers that the sample has no image of.
ensure_vandal_image() {
  ensure_base trixie || die "no base image $BASE_IMAGE"
  build_image "$VANDAL_IMAGE" "$ANDON_ROOT/tests/fixtures/vandal/ci" Dockerfile "$BASE_IMAGE" || die "could not build $VANDAL_IMAGE"
}

# Compilers for AArch64, and a machine to run on.
ensure_aarch64_image() {
  ensure_base sid || die "no base image debian:sid-slim"
  build_image "$AARCH64_IMAGE" "$ANDON_ROOT/ci/images/aarch64" Dockerfile debian:sid-slim || die "could not build $AARCH64_IMAGE"
}
