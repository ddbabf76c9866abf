"""A stack of three servers: the shop's MySQL, a PostgreSQL and a Redis. `python3 three.py` seeds the latter two."""

import contextlib
import time

import pg8000.native
import redis
import rounds

ROWS = 20_000
KINDS = 97
KEYS = 1_000
# So many rows are changed in each round.
UPDATED = 100


def kind(row):
    return row % KINDS


def until_up(connect, *refusals):
    end = time.monotonic() + rounds.START_LIMIT_S
    while True:
        try:
            return connect()
        except refusals:
            if time.monotonic() > end:
                raise
            time.sleep(0.002)


def postgres(host):
    connect = lambda: pg8000.native.Connection("postgres", host=host, timeout=20)
    return contextlib.closing(until_up(connect, pg8000.exceptions.InterfaceError, pg8000.exceptions.DatabaseError))


def cache(host):
    def connect():
        client = redis.Redis(host, socket_connect_timeout=5)
        client.ping()
        return client

    return contextlib.closing(until_up(connect, redis.exceptions.ConnectionError))


def seed(hosts):
    with postgres(hosts["pg"]) as pg:
        pg.run(f"CREATE TABLE items AS SELECT n AS id, n % {KINDS} AS kind FROM generate_series(1, {ROWS}) n")
        pg.run("ALTER TABLE items ADD PRIMARY KEY (id)")
    with cache(hosts["cache"]) as client:
        client.mset({f"key-{n}": n for n in range(KEYS)})


class Three(rounds.Shop):
    name, services = "three", ("db", "pg", "cache")

    @staticmethod
    def spoil(hosts, number):
        rounds.Shop.spoil(hosts, number)
        with postgres(hosts["pg"]) as pg:
            pg.run(f"UPDATE items SET kind = kind + 1 WHERE id <= {UPDATED}")
            pg.run("CREATE TABLE litter (id INT)")
            pg.run("CREATE ROLE litterbug")
        with cache(hosts["cache"]) as client:
            client.set("litter", number)
            client.delete("key-1")
            client.config_set("maxmemory", 100_000_000 + number)

    @staticmethod
    def first_answers(hosts):
        wrong = rounds.Shop.first_answers(hosts)
        with postgres(hosts["pg"]) as pg:
            if pg.run(f"SELECT SUM(kind) FROM items WHERE id <= {UPDATED}") != [[sum(map(kind, range(1, UPDATED + 1)))]]:
                wrong.append("answer of PostgreSQL")
        with cache(hosts["cache"]) as client:
            if client.get("key-1") != b"1":
                wrong.append("answer of Redis")
        return wrong

    @staticmethod
    def ask(hosts):
        state = rounds.Shop.ask(hosts)
        with postgres(hosts["pg"]) as pg:
            state["items"] = pg.run("SELECT COUNT(*), SUM(id * kind) FROM items")
            state["relations"] = pg.run("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1")
            state["roles"] = pg.run("SELECT rolname FROM pg_roles ORDER BY 1")
        with cache(hosts["cache"]) as client:
            keys = sorted(client.keys())
            state["keys"] = [[key.decode(), value.decode()] for key, value in zip(keys, client.mget(keys))]
            state["memory"] = client.config_get("maxmemory")
        return state


if __name__ == "__main__":
    seed({name: name for name in Three.services})
