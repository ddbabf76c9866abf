#!/bin/sh
# Starts MySQL or MariaDB for tests: an empty data folder is initialised, root may come from any host without a password,
# and the server takes the place of this script, so that signals reach it. Arguments go to the server.
#
# The options trade durability for speed: a test database is thrown away, never recovered after power loss. The doubled
# writes, syncs and instrumentation that are off here are most of a small server's start and of each DDL statement.
set -eu
data=/var/lib/mysql

if [ -x /usr/sbin/mysqld ] && [ ! -x /usr/sbin/mariadbd ]; then
  server=/usr/sbin/mysqld
  quick="--mysqlx=OFF --innodb-doublewrite=OFF --innodb-flush-method=nosync --innodb-redo-log-capacity=8M"
else
  server=/usr/sbin/mariadbd
  quick="--skip-innodb-doublewrite --innodb-flush-method=fsync --innodb-log-file-size=8M --innodb-fast-shutdown=1"
fi
quick="$quick --performance-schema=OFF --skip-log-bin --skip-name-resolve --innodb-log-buffer-size=1M
  --innodb-flush-log-at-trx-commit=0 --innodb-use-native-aio=OFF --innodb-buffer-pool-load-at-startup=OFF
  --innodb-buffer-pool-dump-at-shutdown=OFF --innodb-buffer-pool-size=128M --max-connections=60"

# The volume may be a fresh folder of root's.
chown mysql:mysql "$data"
if [ -z "$(ls -A "$data")" ]; then
  echo "database: initialising $data"
  if [ "$server" = /usr/sbin/mysqld ]; then
    # Accounts cannot be made while a server initialises itself, but the tables they live in can be written.
    cat >/tmp/root.sql <<'SQL'
UPDATE mysql.user SET Host = '%' WHERE User = 'root';
UPDATE mysql.global_grants SET HOST = '%' WHERE USER = 'root';
UPDATE mysql.proxies_priv SET Host = '%' WHERE User = 'root';
SQL
    # shellcheck disable=SC2086
    "$server" --user=mysql --datadir="$data" --initialize-insecure --init-file=/tmp/root.sql $quick
    rm -f /tmp/root.sql
  else
    mariadb-install-db --user=mysql --datadir="$data" --auth-root-authentication-method=normal \
      --skip-test-db --skip-name-resolve >/tmp/install.log 2>&1 || { cat /tmp/install.log; exit 1; }
    # shellcheck disable=SC2086
    "$server" --user=mysql --datadir="$data" $quick --bootstrap <<'SQL'
DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost');
DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost';
FLUSH PRIVILEGES;
RENAME USER root@localhost TO root@'%';
SQL
  fi
  echo "database: initialised"
fi

# shellcheck disable=SC2086
exec "$server" --user=mysql --datadir="$data" --bind-address=0.0.0.0 --socket=/var/run/mysqld/mysqld.sock \
  --pid-file=/var/run/mysqld/mysqld.pid --secure-file-priv= $quick "$@"
