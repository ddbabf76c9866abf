"""Puts a live seeded database back to its baseline, again and again, the ways one would without Andon; and writes the page
that holds them beside Andon's drivers.

Every round spoils the database (rows, a table, a user), then the clock runs from the moment the last client is gone until a new
connection has read the right answer. A round whose answer is wrong counts as a failure, not as a time. The ways take
turns, so that a slow minute of the machine hits all of them.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import pymysql

PREFIX = "andon-bench"
START_LIMIT_S = 120


def docker(*arguments, **options):
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, **options).stdout.strip()


def address(container):
    return docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)


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
            time.sleep(0.005)


def spoil(host):
    with contextlib.closing(connect(host)) as db, db.cursor() as cursor:
        cursor.execute("UPDATE shop.products SET price_cents = price_cents + 1 WHERE id <= 100")
        cursor.execute("DELETE FROM shop.payments WHERE id <= 50")
        cursor.execute("CREATE TABLE shop.litter (id INT PRIMARY KEY)")
        cursor.execute("CREATE USER litterbug")


class Oracle:
    """What the seeded shop answers."""

    TABLES = ("products", "payments", "orders", "customers")

    def __init__(self, host):
        self.right = self.ask(connect(host))

    def ask(self, db):
        with contextlib.closing(db), db.cursor() as cursor:
            cursor.execute("CHECKSUM TABLE " + ", ".join(f"shop.{table}" for table in self.TABLES))
            sums = cursor.fetchall()
            cursor.execute("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'shop'")
            tables = cursor.fetchone()
            cursor.execute("SELECT user FROM mysql.user ORDER BY user")
            return sums, tables, cursor.fetchall()


class RunOfImage:
    """docker rm -f, docker run of an image in which the data was committed."""

    name, label = "rm+run", "`docker rm` + `run` of a committed image"

    def __init__(self, image, command):
        self.image, self.command, self.container = image, command, f"{PREFIX}-run"
        self.reset()

    def reset(self):
        subprocess.run(["docker", "rm", "-f", "-v", self.container], capture_output=True, check=False)
        docker("run", "-d", "--name", self.container, "--entrypoint", self.command[0], self.image, *self.command[1:])
        return address(self.container)

    def close(self):
        subprocess.run(["docker", "rm", "-f", "-v", self.container], capture_output=True, check=False)


class Dump:
    """The server stays; its databases are dropped and loaded again from a dump. Users and globals are not put back by it: they are
    dropped by name here, which no real test suite could."""

    name, label = "dump", "a dump loaded again (users dropped by name)"

    def __init__(self, container, client):
        self.container, self.client = container, client
        docker("exec", container, "sh", "-c", f"{client}dump -uroot --add-drop-database --databases shop > /tmp/shop.sql")

    def reset(self):
        load = f"{self.client} -uroot < /tmp/shop.sql && {self.client} -uroot -e 'DROP USER litterbug'"
        docker("exec", self.container, "sh", "-c", load)
        return address(self.container)

    def close(self):
        pass


class Testcontainers:
    """The library from PyPI, on the same committed image."""

    name, label = "testcontainers", "Testcontainers for Python, the committed image"

    def __init__(self, image, command):
        os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
        from testcontainers.core.container import DockerContainer

        self.make = lambda: DockerContainer(image, entrypoint=command[0]).with_command(command[1:])
        self.running = None
        self.reset()

    def reset(self):
        self.close()
        self.running = self.make().start()
        return address(self.running.get_wrapped_container().id)

    def close(self):
        if self.running:
            self.running.stop()
        self.running = None


def seeded(image, shop):
    """A container with the seeded shop, and the committed image of it with the command that starts it."""
    first = f"{PREFIX}-seed"
    docker("run", "-d", "--name", first, image)
    host = address(first)
    when_up(host).close()
    environment = {**os.environ, "SHOP_DB_HOST": host}
    python = Path(os.sys.executable)
    subprocess.run([python, "-m", "db.seed"], cwd=shop, env=environment, check=True)
    words = docker("exec", first, "cat", "/proc/1/cmdline").rstrip("\0").split("\0")
    docker("stop", first)
    # The image declares a VOLUME: a plain commit would hold no data.
    copy = f"{PREFIX}-copy"
    docker("run", "--name", copy, "--volumes-from", first, "--entrypoint", "cp", image, "-a", "/var/lib/mysql", "/seeded")
    docker("commit", copy, f"{PREFIX}:seeded")
    docker("rm", "-v", copy)
    docker("start", first)
    host = address(first)
    when_up(host).close()
    return first, host, [word.replace("--datadir=/var/lib/mysql", "--datadir=/seeded") for word in words]


def figures(times_ms, failures):
    ordered = sorted(times_ms)
    at = lambda q: ordered[min(len(ordered) - 1, int(q * len(ordered)))]
    return {
        "rounds": len(ordered) + failures,
        "failures": failures,
        "min_ms": round(ordered[0], 1),
        "p50_ms": round(statistics.median(ordered), 1),
        "p95_ms": round(at(0.95), 1),
        "p99_ms": round(at(0.99), 1),
        "max_ms": round(ordered[-1], 1),
    }


def measure(ways, oracle, hosts, rounds):
    times = {way.name: [] for way in ways}
    failures = dict.fromkeys(times, 0)
    for _ in range(rounds):
        for way in ways:
            spoil(hosts[way.name])
            start = time.monotonic()
            hosts[way.name] = way.reset()
            db = when_up(hosts[way.name])
            with db.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM shop.payments")
                cursor.fetchone()
            took = (time.monotonic() - start) * 1000
            if oracle.ask(db) == oracle.right:
                times[way.name].append(took)
            else:
                failures[way.name] += 1
    return {way.name: (way.label, figures(times[way.name], failures[way.name])) for way in ways}


def of_andon(path):
    run = json.loads(Path(path).read_text())
    attempts = [attempt for test in run["tests"] for attempt in test["attempts"]]
    driver = attempts[0]["driver"]
    times = [attempt["rebase_us"] / 1000 for attempt in attempts if attempt["rebase_us"] > 0]
    wrong = sum(test["verdict"] != "passed" for test in run["tests"])
    return driver, (f"Andon, `{driver}`", figures(times, wrong)), run


PAGE = """# Rebase: a live seeded database back to its baseline

{when}, {machine}, Docker Engine {engine}, {server}.
Regenerate with `ci/bench rebase`. All rows come from one run on one machine; an absolute time means little elsewhere, the
ratios do.

| way | rounds | failures | min ms | p50 ms | p95 ms | p99 ms | max ms | p50 beside `restart` |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

The stack is the sample shop's: one server, 200,000 rows, started with the options in `ci/sample/images/entrypoint.sh` in
every row. Before each round the database is spoiled.

- The peers' clock runs from the last client's end to the first right answer on a new connection, on the machine's own engine. They take
  turns round by round. A round after which the oracle (checksums of four tables, the list of tables, the list of users) differs from
  the seeded state is a failure.
- Andon's rows are the rebases of {tests} real tests of the shop on one lane of one worker, inside its nested daemon: from the moment
  the unit's last process is gone until the service's healthcheck passes on the verified clone. Each of those tests asserts
  the seeded state and then writes; one that does not pass counts as a failure.
- Every way includes the server's own cold start, but for the dump, which keeps the server and puts back no more than one database.
- {pool}
"""


def page(rows, run, arguments, server):
    base = rows["restart"][1]["p50_ms"]
    lines = []
    for label, f in rows.values():
        cells = [f[key] for key in ("rounds", "failures", "min_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms")]
        lines.append(f"| {label} | " + " | ".join(map(str, cells)) + f" | {f['p50_ms'] / base:.2f}× |")
    text = PAGE.format(
        when=datetime.date.today().isoformat(),
        machine=f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
        engine=docker("version", "-f", "{{.Server.Version}}"),
        server=server,
        rows="\n".join(lines),
        tests=len(run["tests"]),
        pool="The peers' containers live on the engine's own file system, Andon's on the worker's pool.",
    )
    Path(arguments.page).parent.mkdir(parents=True, exist_ok=True)
    Path(arguments.page).write_text(text)
    print(text)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--image", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--shop", required=True)
    parser.add_argument("--andon", nargs="+", required=True)
    parser.add_argument("--page", required=True)
    arguments = parser.parse_args()
    clean()
    try:
        first, host, command = seeded(arguments.image, arguments.shop)
        oracle = Oracle(host)
        with contextlib.closing(connect(host)) as db:
            server = f"server {db.get_server_info()}"
        client = "mariadb" if "Maria" in server else "mysql"
        ways = [
            RunOfImage(f"{PREFIX}:seeded", command),
            Testcontainers(f"{PREFIX}:seeded", command),
            Dump(first, client),
        ]
        hosts = {"rm+run": address(ways[0].container), "dump": host}
        hosts["testcontainers"] = address(ways[1].running.get_wrapped_container().id)
        for ready in hosts.values():
            when_up(ready).close()
        rows, run = {}, None
        for path in arguments.andon:
            driver, row, run = of_andon(path)
            rows[driver] = row
        rows |= measure(ways, oracle, hosts, arguments.rounds)
        for way in ways:
            way.close()
        page(rows, run, arguments, server)
        print(json.dumps({"benchmark": "rebase", **{name: f for name, (_, f) in rows.items()}}))
    finally:
        clean()


def clean():
    ids = docker("ps", "-aq", "--filter", f"name={PREFIX}-").split()
    if ids:
        docker("rm", "-f", "-v", *ids)
    subprocess.run(["docker", "rmi", "-f", f"{PREFIX}:seeded"], capture_output=True, check=False)


if __name__ == "__main__":
    main()
