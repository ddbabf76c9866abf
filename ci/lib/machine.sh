# shellcheck shell=bash source-path=SCRIPTDIR
# What the machine must have: Debian packages, Rust, a Docker engine that answers.
# Sourced, never run. Each function does nothing where its thing is there already.

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DOCKER_WAIT_SECONDS_MAX=60
APT_UPDATED=''

# ensure_packages PACKAGE…: installs those that dpkg does not know as installed.
ensure_packages() {
  local package missing=()
  for package in "$@"; do
    if [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) != 'install ok installed' ]]; then
      missing+=("$package")
    fi
  done
  if ((${#missing[@]} == 0)); then return 0; fi
  have apt-get || die "please install: ${missing[*]} (no apt-get here to do it)"
  say "installing ${missing[*]}"
  if [[ -z $APT_UPDATED ]]; then
    # A foreign repository that is down must not stop us: what counts is whether the install works.
    quietly "$ANDON_CI_DIR/apt-update.log" as_root apt-get -q update || warn 'apt-get update failed; trying anyway'
    APT_UPDATED=1
  fi
  quietly "$ANDON_CI_DIR/apt-install.log" as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -q install -y --no-install-recommends "${missing[@]}" || die "could not install ${missing[*]}"
}

# ensure_commands COMMAND=PACKAGE…: a package for each command that is missing; another source of it is as good.
ensure_commands() {
  local pair packages=()
  for pair in "$@"; do
    have "${pair%%=*}" || packages+=("${pair#*=}")
  done
  if ((${#packages[@]} > 0)); then ensure_packages "${packages[@]}"; fi
}

ensure_rust() {
  if ! have cargo && [[ -x $HOME/.cargo/bin/cargo ]]; then PATH=$HOME/.cargo/bin:$PATH; fi
  have cargo || die "cargo is missing: install Rust 1.90 or newer (https://rustup.rs), then run this again"
  # SQLite, libgit2 and zstd are compiled from source.
  ensure_commands cc=gcc make=make git=git
  [[ -e /usr/include/stdio.h ]] || ensure_packages libc6-dev
}

docker_answers() { timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# ensure_docker: after it `docker` reaches an engine. Uses what runs; installs and starts one where nothing does.
ensure_docker() {
  # The classic builder is in every engine since 1.0; BuildKit needs a plugin that Debian does not install.
  export DOCKER_BUILDKIT=0
  if [[ -n ${DOCKER_HOST:-} ]]; then
    ensure_docker_cli
    docker_answers || die "DOCKER_HOST=$DOCKER_HOST does not answer (unset it to use this machine's own engine)"
    say "docker: the engine at $DOCKER_HOST, from DOCKER_HOST ($(engine_version))"
    return 0
  fi
  if have docker && docker_answers; then
    say "docker: the engine that runs here ($(engine_version))"
    return 0
  fi
  ensure_docker_cli
  have dockerd || ensure_packages docker.io iptables
  if ! docker_answers; then start_docker; fi
  if ! docker_answers; then
    die "the engine runs, but $(id -un) may not use it: run as root, or join the group docker"
  fi
  say "docker: $(engine_version)"
}

engine_version() { docker version --format 'engine {{.Server.Version}}, API {{.Server.APIVersion}}'; }

ensure_docker_cli() {
  if have docker; then return 0; fi
  # From trixie on the client is a package of its own.
  if [[ -n $(apt-cache search --names-only '^docker-cli$' 2>/dev/null) ]]; then ensure_packages docker-cli; fi
  have docker || ensure_packages docker.io iptables
  if ! have docker; then ensure_packages docker-cli; fi
}

start_docker() {
  local log=$ANDON_CI_DIR/dockerd.log
  if [[ -d /run/systemd/system ]]; then
    say 'starting docker.service'
    as_root systemctl start docker || die 'systemctl could not start docker'
    await_docker '' "$log" && return 0
    die "docker.service gave no answer within $DOCKER_WAIT_SECONDS_MAX s: journalctl -u docker"
  fi
  forget_dead_dockerd
  say "starting dockerd (log: $log)"
  launch_dockerd "$log"
  if await_docker "$DOCKERD_PID" "$log"; then return 0; fi
  if grep -qiE 'iptables|nat' "$log" 2>/dev/null; then
    # Builds use the host's network and workers talk over the bridge itself: both do without NAT.
    warn 'dockerd cannot set up iptables here; starting it without'
    forget_dead_dockerd
    launch_dockerd "$log" --iptables=false --ip6tables=false
    if await_docker "$DOCKERD_PID" "$log"; then return 0; fi
  fi
  tail -n 30 "$log" | indent >&2
  die "dockerd did not answer within $DOCKER_WAIT_SECONDS_MAX s"
}

# A pid file whose process is another program now makes dockerd refuse to start.
forget_dead_dockerd() {
  local pid
  pid=$(cat /var/run/docker.pid 2>/dev/null || true)
  if [[ -n $pid && $(cat "/proc/$pid/comm" 2>/dev/null || true) != dockerd ]]; then
    as_root rm -f /var/run/docker.pid
  fi
}

# launch_dockerd LOG FLAG…: detached, all descriptors of ours closed, so that nobody who waits for our pipes waits
# for the engine. Sets DOCKERD_PID.
launch_dockerd() {
  local log=$1
  shift
  local root=()
  ((EUID == 0)) || root=(sudo)
  : >"$log"
  (
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      if ((fd > 2)); then eval "exec $fd>&-"; fi
    done
    exec setsid "${root[@]}" dockerd "$@" >>"$log" 2>&1 </dev/null
  ) &
  DOCKERD_PID=$!
}

# await_docker PID LOG: until the API answers, the process ends, or the limit is reached.
await_docker() {
  local pid=$1 end=$((SECONDS + DOCKER_WAIT_SECONDS_MAX))
  while ((SECONDS < end)); do
    if as_root docker version >/dev/null 2>&1; then return 0; fi
    if [[ -n $pid && ! -d /proc/$pid ]]; then return 1; fi
    sleep 0.2
  done
  return 1
}

# A TCP port of loopback that nobody listens on right now.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
