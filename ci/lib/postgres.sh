# shellcheck shell=bash source-path=SCRIPTDIR
# A PostgreSQL server of the tests' own, on a port of loopback, with a user that may create databases. Sourced, never run.

# shellcheck source=machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"

POSTGRES_WAIT_SECONDS_MAX=60

# start_postgres: exports ANDON_TEST_POSTGRES, the URL of a server that answers. Safe to repeat; a cluster that an earlier
# run left, running or not, is used again.
start_postgres() {
  local tools port
  if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then ensure_packages postgresql; fi
  tools=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1)
  POSTGRES_TOOLS=$tools
  POSTGRES_DIR=$(postgres_dir)
  if [[ ! -f $POSTGRES_DIR/data/PG_VERSION ]]; then
    rm -rf "$POSTGRES_DIR"
    mkdir -p "$POSTGRES_DIR"
    if (($(id -u) == 0)); then chown postgres "$POSTGRES_DIR"; fi
    quietly "$ANDON_CI_DIR/initdb.log" as_postgres "$tools/initdb" -D "$POSTGRES_DIR/data" -U andon --auth=trust -E UTF8 \
      --locale=C
  fi
  # Debian's PostgreSQL brings openssl along. The path of the certificate is where the tests look for it.
  if [[ ! -f $POSTGRES_DIR/data/server.crt ]]; then
    printf '%s\n' '[req]' distinguished_name=dn x509_extensions=v3 '[dn]' '[v3]' \
      basicConstraints=critical,CA:FALSE subjectAltName=IP:127.0.0.1 >"$POSTGRES_DIR/openssl.cnf"
    quietly "$ANDON_CI_DIR/openssl.log" as_postgres openssl req -new -x509 -days 3650 -nodes -subj /CN=andon-tests \
      -config "$POSTGRES_DIR/openssl.cnf" -keyout "$POSTGRES_DIR/data/server.key" -out "$POSTGRES_DIR/data/server.crt"
  fi
  port=$(free_port)
  if ! as_postgres "$tools/pg_ctl" -D "$POSTGRES_DIR/data" status >/dev/null 2>&1; then
    as_postgres "$tools/pg_ctl" -D "$POSTGRES_DIR/data" -l "$POSTGRES_DIR/log" -w -t "$POSTGRES_WAIT_SECONDS_MAX" \
      -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200 -c ssl=on" start >/dev/null ||
      die "PostgreSQL does not start: $POSTGRES_DIR/log"
  fi
  port=$(sed -n 4p "$POSTGRES_DIR/data/postmaster.pid")
  export ANDON_TEST_POSTGRES=postgres://andon@127.0.0.1:$port/postgres
  say "postgres: $("$tools/postgres" --version | cut -d' ' -f3), on port $port"
}

# restart_postgres [immediate]: the server goes away, without a word to its clients where told so, and comes back on the
# same port.
restart_postgres() {
  local tools
  tools=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1)
  as_postgres "$tools/pg_ctl" -D "$(postgres_dir)/data" -m "${1:-fast}" -w -t "$POSTGRES_WAIT_SECONDS_MAX" \
    -l "$(postgres_dir)/log" restart >/dev/null
}

# The server refuses to be root's, and its user must reach its folder. Each working copy has a server of its own.
postgres_dir() { echo "/tmp/andon-test-postgres-$(id -u)-$(cksum <<<"$ANDON_ROOT" | cut -d' ' -f1)"; }

# stop_postgres: ends and removes the server that start_postgres started, if any.
stop_postgres() {
  if [[ -z ${POSTGRES_DIR:-} ]]; then return 0; fi
  as_postgres "$POSTGRES_TOOLS/pg_ctl" -D "$POSTGRES_DIR/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$POSTGRES_DIR"
}

as_postgres() {
  if (($(id -u) == 0)); then (cd / && setpriv --reuid=postgres --regid=postgres --init-groups "$@"); else "$@"; fi
}
