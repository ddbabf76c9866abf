"""Rounds of one way that puts a seeded stack back: spoil, close, put back, ask, compare.

Runs in a unit's container with Andon's ways (`python3 rounds.py STACK ROUNDS THINK_S`, rebases by ANDON_SOCKET), and is what the
peers on the machine's own engine are measured with, too (`peers.py`). So the clock is the same for all: from the moment the last
client is gone to the first right answer on a new connection, of each server. The oracle is asked after the clock has stopped.

A stack is a class of functions: of one server here (`Shop`), of three in `three.py`. `hosts` are addresses by service.
"""

import contextlib
import http.client
import json
import os
import socket
import sys
import time

import pymysql

START_LIMIT_S = 120
SUSTAINED_MAX = 15
# The first payments are deleted in each round; their numbers begin with 1.
DELETED = 50
LITTER = "/tmp/litter"
# Settings that differ from one start to the next by themselves, or with the name of the machine.
RESTLESS = {
    "timestamp", "pseudo_thread_id", "hostname", "server_uuid", "server_uid", "last_gtid", "log_error", "datadir",
    "general_log_file", "slow_query_log_file", "relay_log", "relay_log_basename", "relay_log_index", "gtid_executed", "gtid_purged", "innodb_buffer_pool_load_status", "identity", "rand_seed1", "rand_seed2",
}


def connect(host):
    return pymysql.connect(host=host, user="root", autocommit=True, connect_timeout=5)


def when_up(host):
    """The first connection that is accepted."""
    end = time.monotonic() + START_LIMIT_S
    while True:
        try:
            return connect(host)
        except pymysql.err.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.002)


def all_of(cursor, statement):
    cursor.execute(statement)
    return cursor.fetchall()


def ask(db):
    """Tables and their contents, schema, AUTO_INCREMENT, users, globals, files: what any round may have changed."""
    with db.cursor() as cursor:
        tables = [name for name, in all_of(cursor, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop' ORDER BY 1")]
        is_maria = "Maria" in db.get_server_info()
        files = "innodb_sys_tablespaces" if is_maria else "innodb_tablespaces"
        state = {
            "contents": all_of(cursor, "CHECKSUM TABLE " + ", ".join(f"shop.{name}" for name in tables)),
            "schema": [all_of(cursor, f"SHOW CREATE TABLE shop.{name}") for name in tables],
            "users": all_of(cursor, "SELECT user, host FROM mysql.user ORDER BY 1, 2"),
            "files": all_of(cursor, f"SELECT name FROM information_schema.{files} WHERE name NOT LIKE 'innodb_temp%' ORDER BY 1"),
            "litter": all_of(cursor, f"SELECT LOAD_FILE('{LITTER}') IS NULL"),
            "globals": [row for row in all_of(cursor, "SHOW GLOBAL VARIABLES") if row[0] not in RESTLESS],
        }
    return json.loads(json.dumps(state, default=str))


def spoil(host, number):
    with contextlib.closing(connect(host)) as db, db.cursor() as cursor:
        cursor.execute("UPDATE shop.products SET price_cents = price_cents + 1 WHERE id <= 100")
        cursor.execute(f"DELETE FROM shop.payments WHERE id <= {DELETED}")
        cursor.execute("CREATE TABLE shop.litter (id INT PRIMARY KEY)")
        cursor.execute("CREATE USER litterbug")
        cursor.execute(f"SET GLOBAL max_connections = {50 + number % 7}")
        cursor.execute(f"SELECT 1 INTO OUTFILE '{LITTER}'")


def busy_s():
    """Processor seconds that this machine has worked since it was started (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as stat:
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


class Shop:
    """One MySQL with the sample shop's 200,000 rows."""

    name, services = "shop", ("db",)

    @staticmethod
    def spoil(hosts, number):
        spoil(hosts["db"], number)

    @staticmethod
    def first_answers(hosts):
        """Waits for them; answers with what is wrong with them."""
        with contextlib.closing(when_up(hosts["db"])) as db:
            (count,), = all_of(db.cursor(), f"SELECT COUNT(*) FROM shop.payments WHERE id <= {DELETED}")
        return [] if count == DELETED else ["answer"]

    @staticmethod
    def ask(hosts):
        with contextlib.closing(when_up(hosts["db"])) as db:
            return ask(db)

    @staticmethod
    def touch(hosts, number):
        """Writes one row, and makes sure that nobody has before."""
        with contextlib.closing(when_up(hosts["db"])) as db, db.cursor() as cursor:
            (price,), = all_of(cursor, "SELECT price_cents FROM shop.products WHERE id = 1")
            assert price != 999999999, f"round {number} sees the one before"
            cursor.execute("UPDATE shop.products SET price_cents = 999999999 WHERE id = 1")


def one(stack, hosts, number, reset, right, think_s=0.0, spoil=None):
    """One round: how long it took, what the processors did meanwhile, and what was wrong after it."""
    began = busy_s()
    (spoil or stack.spoil)(hosts, number)
    # A test goes on for a while after it has written.
    time.sleep(think_s)
    start = time.monotonic()
    hosts = reset() or hosts
    wrong = stack.first_answers(hosts)
    took = time.monotonic() - start
    worked = busy_s() - began
    now = stack.ask(hosts)
    wrong += [name for name in right if now[name] != right[name]]
    return hosts, {"ms": took * 1000, "cpu_ms": worked * 1000, "wrong": wrong}


def rebase():
    connection = http.client.HTTPConnection("andon", timeout=600)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(os.environ["ANDON_SOCKET"])
    connection.request("POST", "/rebase")
    answer = connection.getresponse()
    said = answer.read()
    assert answer.status == 200, said
    return json.loads(said)


def stack_of(name):
    if name == Shop.name:
        return Shop
    import three

    return three.Three


def main():
    stack, rounds, think_s = stack_of(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    hosts = {name: name for name in stack.services}
    right = stack.ask(hosts)
    rebase()
    drivers = []
    for number in range(rounds):
        _, done = one(stack, hosts, number, lambda: drivers.append(rebase()["driver"]), right, think_s)
        print("ROUND " + json.dumps(done), flush=True)
    fast = sustained(stack, hosts, min(rounds, SUSTAINED_MAX))
    print("BLOCK " + json.dumps({"drivers": drivers, "sustained": fast}), flush=True)


def sustained(stack, hosts, count):
    """One after the other, as fast as they go. What the processors did, too."""
    began, worked = time.monotonic(), busy_s()
    for number in range(count):
        stack.touch(hosts, number)
        rebase()
    took = time.monotonic() - began
    return {"rebases": count, "s": took, "cpu_s": busy_s() - worked}


if __name__ == "__main__":
    main()
