"""Runs the rebase benchmark in cycles, Andon's blocks and the peers' rounds in turn, and writes its page.

Everything here is the plan and the page; rounds are in `rounds.py`, the peers in `peers.py`.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
from pathlib import Path

import peers
import rounds

CYCLES = 4
# A test that takes a second, for the row that shows what is waited for between tests.
THINK_S = 1.0
ANDON_WAYS = [
    # driver, think time, name, label
    ("standby", THINK_S, "standby", "Andon, `standby`, a test of a second between"),
    ("standby", 0.0, "standby-busy", "Andon, `standby`, nothing between"),
    ("restart", 0.0, "restart", "Andon, `restart`"),
    ("recreate", 0.0, "recreate", "Andon, `recreate`"),
]
PROJECT = """[stack]
compose = "compose.yaml"
[baseline]
seed = ["python3 -m db.seed"]
inputs = ["db/**"]
[[suite]]
name = "rounds"
image = {{ build = "ci" }}
discover = "printf '%s\\n' {ids}"
run = "for id in {{tests}}; do python3 rounds.py {count} $id; done"
timeout = "2h"
rebase = "test"
"""


class Andon:
    """A farm of one box with one lane, for one driver and one cycle."""

    def __init__(self, arguments, driver):
        self.binary, self.image, self.db = arguments.andon, arguments.worker, arguments.image
        self.state, self.shop, self.driver = Path(arguments.state), Path(arguments.shop), driver

    def call(self, *words, **options):
        environment = {**os.environ, "ANDON_STATE": str(self.state)}
        return subprocess.run([self.binary, *words], env=environment, check=True, text=True, **options)

    def __enter__(self):
        self.call("up", "--workers", "1", "--lanes", "1", "--image", self.image, "--driver", self.driver,
                  "--listen", f"127.0.0.1:{free_port()}")
        self.call("image", "add", self.db, "debian:trixie-slim", stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        self.call("down", "--purge", stdout=subprocess.DEVNULL)

    def blocks(self, folder, count, thinks):
        """The rounds of one run: a block for each think time."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.shop, folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(Path(__file__).parent / "rounds.py", folder)
        compose = folder / "compose.yaml"
        compose.write_text(re.sub(r"image: andon-sample/\S+", f"image: {self.db}", compose.read_text()))
        (folder / "andon.toml").write_text(PROJECT.format(ids=" ".join(f"{think}" for think in thinks), count=count))
        git = ["git", "-C", str(folder), "-c", "user.name=bench", "-c", "user.email=bench@andon.invalid"]
        for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "rounds"]):
            subprocess.run([*git, *words], check=True)
        self.call("run", cwd=folder)
        run = str(json.loads(self.call("show", "--json", cwd=folder, stdout=subprocess.PIPE).stdout)["run"])
        box = peers.docker("ps", "-q", "--filter", f"ancestor={self.image}").split()
        memory = peers.memory_mib(*box)
        for think in thinks:
            log = self.call("logs", run, f"{think}", cwd=folder, stdout=subprocess.PIPE).stdout
            lines = [line.split(" ", 1) for line in log.splitlines() if line.startswith(("ROUND ", "BLOCK "))]
            block = next(json.loads(rest) for kind, rest in lines if kind == "BLOCK")
            yield think, [json.loads(rest) for kind, rest in lines if kind == "ROUND"], block, memory


def free_port():
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Row:
    """All rounds of one way."""

    def __init__(self, label):
        self.label, self.rounds, self.memory_mib, self.sustained, self.drivers = label, [], [], [], []

    def figures(self):
        good = sorted(one["ms"] for one in self.rounds if not one["wrong"])
        at = lambda q: good[min(len(good) - 1, int(q * len(good)))]
        found = {
            "rounds": len(self.rounds),
            "failures": len(self.rounds) - len(good),
            "min_ms": round(good[0], 1),
            "p50_ms": round(statistics.median(good), 1),
            "p95_ms": round(at(0.95), 1),
            "p99_ms": round(at(0.99), 1),
            "max_ms": round(good[-1], 1),
            "cpu_ms": round(statistics.median(one["cpu_ms"] for one in self.rounds)),
            "memory_mib": round(max(self.memory_mib)) if self.memory_mib else None,
        }
        if self.sustained:
            rebases, seconds = (sum(one[key] for one in self.sustained) for key in ("rebases", "s"))
            found["sustained_per_s"] = round(rebases / seconds, 2)
            found["sustained_cpu_ms"] = round(1000 * sum(one["cpu_s"] for one in self.sustained) / rebases)
        return found


def right_of(way, seeded):
    """What the way's own server answers before it is spoiled: settings name folders, and those differ. The data may not."""
    if not hasattr(way, "right"):
        with contextlib.closing(rounds.when_up(way.host)) as db:
            way.right = rounds.ask(db)
        assert all(way.right[part] == seeded[part] for part in ("contents", "schema", "users")), way.name
    rounds.when_up(way.host).close()
    return way.right


def take_turns(ways, right, rows, count):
    for number in range(count):
        for way in ways:
            row = rows.setdefault(way.name, Row(way.label))
            if hasattr(way, "round"):
                row.rounds.append(way.round(number))
                continue
            own_right = right_of(way, right)
            spoil = getattr(way, "spoil", rounds.spoil)
            way.host, done = rounds.one(way.host, number, way.reset, own_right, spoil=spoil)
            row.rounds.append(done)
    for way in ways:
        if way.containers():
            rows[way.name].memory_mib.append(peers.memory_mib(*way.containers()))


def all_peers(arguments, image, command, first, copy, client):
    yield peers.ColdStart(image, command)
    yield peers.RunOfImage(image, command)
    yield peers.Testcontainers(image, command)
    if shutil.which("docker-compose"):
        yield peers.Compose(image, command, Path(arguments.scratch) / "compose")
    yield peers.KillAndCopy(image, command, copy, Path(arguments.scratch) / "copy")
    yield peers.Rollback(first)
    yield peers.Truncate(first)
    yield peers.Dump(first, client)
    if arguments.postgres:
        yield peers.Template(arguments.postgres)


PAGE = """# Rebase: a live seeded database back to its baseline

{when}, {machine}, Docker Engine {engine}, {server}. Regenerate with `ci/bench rebase`. All rows come from one run on one machine, in
{cycles} cycles in which they take turns; an absolute time means little elsewhere, the ratios do.

| way | rounds | failures | min ms | p50 ms | p95 ms | p99 ms | max ms | beside `rm` + `run` | CPU ms a round | memory MiB |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

The stack is the sample shop's: one server, 200,000 rows, started with the options in `ci/sample/images/entrypoint.sh` in every row (but
PostgreSQL's). The clock is the same for all: from the moment the last client is gone to the first right answer on a new connection. Before each
round a client updates and deletes rows, makes a table, a user and a file, and changes a setting; after it, when the clock has stopped, an
oracle compares checksums of all tables, the schema with its AUTO_INCREMENTs, users, settings, tablespaces and that file with the
seeded state: any difference makes the round a failure, not a time. (Of a rolled back transaction only rows are spoiled.)

- Andon's rounds are asked for by a test, with `POST /rebase` on `ANDON_SOCKET`, on one lane of one worker, inside its nested daemon. The
  peers run on the machine's own engine.
- *CPU* is what all processors of the machine did in a round, whoever did it: from the first spoiling statement to the answer, and for
  `standby` with a test between also what goes on behind the test. *Memory* is what `docker stats` tells of the way's containers at the end;
  for Andon that is the whole worker box, with its daemon, agent, and every stack.
- Every way includes the server's own cold start but for `standby`, which has it behind the test, and the three that keep the server and put
  back no more than one database.

## What `standby` costs

Nothing is free: it restarts as often as `restart` does, behind the tests, and holds more memory. Without any time between rebases there is
nothing to hide behind:

| driver | rebases a second, nothing between | CPU ms a rebase |
| --- | ---: | ---: |
{sustained}

One processor that does nothing but cold starts of this server would do {cold_rate:.2f} a second ({cold:.0f} ms each).
Rounds in which the lane changed over: {changed} of {asked}; in the others it had but one stand, and restarted it.
"""


def page(rows, arguments, server):
    figures = {name: row.figures() for name, row in rows.items()}
    base = figures["rm+run"]["p50_ms"]
    lines = []
    for name, row in rows.items():
        f = figures[name]
        keys = ("rounds", "failures", "min_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms")
        memory = f["memory_mib"] if f["memory_mib"] is not None else ""
        cells = [*(f[key] for key in keys), f"{f['p50_ms'] / base:.2f}×", f["cpu_ms"], memory]
        lines.append(f"| {row.label} | " + " | ".join(map(str, cells)) + " |")
    busy = [name for name in ("standby-busy", "restart", "recreate") if "sustained_per_s" in figures[name]]
    sustained = [f"| `{name.split('-')[0]}` | {figures[name]['sustained_per_s']} | {figures[name]['sustained_cpu_ms']} |" for name in busy]
    asked = rows["standby"].drivers + rows["standby-busy"].drivers
    text = PAGE.format(
        when=datetime.date.today().isoformat(),
        machine=f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
        engine=peers.docker("version", "-f", "{{.Server.Version}}"),
        server=server,
        cycles=arguments.cycles,
        rows="\n".join(lines),
        sustained="\n".join(sustained),
        cold=figures["cold"]["p50_ms"],
        cold_rate=1000 / figures["cold"]["p50_ms"],
        changed=sum(driver == "standby" for driver in asked),
        asked=len(asked),
    )
    Path(arguments.page).parent.mkdir(parents=True, exist_ok=True)
    Path(arguments.page).write_text(text)
    print(text)
    print(json.dumps({"benchmark": "rebase", **figures}))


def cycle(arguments, rows, ways, right, count):
    for driver in dict.fromkeys(driver for driver, *_ in ANDON_WAYS):
        own = [way for way in ANDON_WAYS if way[0] == driver]
        with Andon(arguments, driver) as farm:
            folder = Path(arguments.scratch) / "project"
            for think, done, block, memory in farm.blocks(folder, count, [think for _, think, *_ in own]):
                _, _, name, label = next(way for way in own if way[1] == think)
                row = rows.setdefault(name, Row(label))
                row.rounds += done
                row.memory_mib.append(memory)
                row.sustained.append(block["sustained"])
                row.drivers += block["drivers"]
    take_turns(ways, right, rows, count)


def main():
    parser = argparse.ArgumentParser()
    for name in ("andon", "worker", "image", "shop", "page", "state", "scratch"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--cycles", type=int, default=CYCLES)
    parser.add_argument("--postgres", default="")
    arguments = parser.parse_args()
    peers.clean()
    ways = []
    try:
        first, copy, command = peers.seeded(arguments.image, arguments.shop)
        with contextlib.closing(rounds.connect(peers.address(first))) as db:
            server = f"server {db.get_server_info()}"
            right = rounds.ask(db)
        client = "mariadb" if "Maria" in server else "mysql"
        ways += all_peers(arguments, f"{peers.PREFIX}:seeded", command, first, copy, client)
        rows = {}
        for _ in range(arguments.cycles):
            cycle(arguments, rows, ways, right, max(1, arguments.rounds // arguments.cycles))
        page(rows, arguments, server)
    finally:
        for way in ways:
            with contextlib.suppress(subprocess.CalledProcessError):
                way.close()
        peers.clean()


if __name__ == "__main__":
    main()
