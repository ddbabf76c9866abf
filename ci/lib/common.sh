# shellcheck shell=bash source-path=SCRIPTDIR
# What every script of ci/ shares: where things are, how to say something, how to fail.
# Sourced, never run. Sets no traps and starts nothing. Needs bash and coreutils only.

if [[ -n ${ANDON_COMMON_SOURCED:-} ]]; then return 0; fi
ANDON_COMMON_SOURCED=1

ANDON_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ANDON_TARGET=${CARGO_TARGET_DIR:-$ANDON_ROOT/target}
# Logs and staging of these scripts; nothing else of theirs is written outside Docker and a farm's state folder.
ANDON_CI_DIR=$ANDON_TARGET/ci
mkdir -p "$ANDON_CI_DIR"

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  C_BOLD=$'\e[1m' C_RED=$'\e[31m' C_GREEN=$'\e[32m' C_BLUE=$'\e[34m' C_OFF=$'\e[0m'
else
  C_BOLD='' C_RED='' C_GREEN='' C_BLUE='' C_OFF=''
fi

# A heading, a line of progress, a line of success, a warning, an end.
step() { printf '\n%s==> %s%s\n' "$C_BOLD$C_BLUE" "$*" "$C_OFF"; }
say() { printf '    %s\n' "$*"; }
good() { printf '    %s%s%s\n' "$C_GREEN" "$*" "$C_OFF"; }
warn() { printf '%swarning:%s %s\n' "$C_RED" "$C_OFF" "$*" >&2; }
die() {
  printf '%serror:%s %s\n' "$C_RED" "$C_OFF" "$*" >&2
  exit 1
}

# Lines of something else, set apart.
indent() { sed 's/^/    | /'; }

have() { command -v "$1" >/dev/null 2>&1; }

# Seconds with one decimal since the time that `now` gave.
now() { date +%s%N; }
since() { awk -v a="$1" -v b="$(date +%s%N)" 'BEGIN { printf "%.1f s", (b - a) / 1e9 }'; }

# quietly LOG COMMAND…: output goes to the log; where the command fails its end is shown.
quietly() {
  local log=$1 code=0
  shift
  "$@" >"$log" 2>&1 </dev/null || code=$?
  if ((code != 0)); then
    warn "\`$*\` ended with $code; the end of $log:"
    tail -n 30 "$log" | indent >&2
  fi
  return "$code"
}

# silent LOG COMMAND…: fails where the command does, or says anything, which is then shown.
silent() {
  quietly "$@" || return
  if [[ -s $1 ]]; then cat "$1" >&2 && return 1; fi
}

# as_root COMMAND…: as it is for root, through sudo for others.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "this needs root: $* (run the script as root, or install sudo)"
  fi
}
