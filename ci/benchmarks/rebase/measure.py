"""Runs the rebase benchmark in cycles, Andon's blocks and the peers' rounds in turn, and writes its page.

Everything here is the plan and the page; rounds are in `rounds.py`, the peers in `peers.py`.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import farm  # noqa: E402
import peers  # noqa: E402
import rounds  # noqa: E402

CYCLES = 4
# A test that takes a second, for the row that shows what is waited for between tests.
THINK_S = 1.0
POOLS = ["reflink", "btrfs", "overlay", "copy"]
DRIVERS = ["rewind", "standby", "restart", "recreate"]
# Where files can have a second name.
REWOUND = [("shop", "reflink"), ("shop", "copy"), ("three", "reflink")]


@dataclasses.dataclass(frozen=True)
class Way:
    """One of Andon's: what a farm is started with, and how long a test goes on after it has written, in seconds."""

    stack: str
    driver: str
    pool: str
    think: float

    @property
    def name(self):
        return f"{self.stack}:{self.driver}:{self.pool}" + ("" if self.think or self.driver != "standby" else ":busy")

    @property
    def label(self):
        between = {0.0: ", nothing between"}.get(self.think, ", a test of a second between")
        return f"Andon, `{self.driver}`, {self.pool}" + (between if self.driver == "standby" else "")


def ways_of(stack, pool):
    thinks = {"standby": [THINK_S, 0.0]}
    drivers = [driver for driver in DRIVERS if driver != "rewind" or (stack, pool) in REWOUND]
    return [Way(stack, driver, pool, think) for driver in drivers for think in thinks.get(driver, [0.0])]


# The first pool is what a worker takes by itself where the file system cannot clone (an image with XFS).
ANDON_WAYS = [
    *ways_of("shop", POOLS[0]),
    *(way for pool in POOLS[1:] for way in ways_of("shop", pool) if way.think or way.driver != "standby"),
    *ways_of("three", POOLS[0]),
]
PROJECT = """[stack]
compose = "compose.yaml"
{quick}[baseline]
seed = [{seed}]
inputs = [{inputs}]
[[suite]]
name = "rounds"
image = {{ build = "{suite}" }}
discover = "printf '%s\\n' {ids}"
run = "for id in {{tests}}; do python3 rounds.py {stack} {count} $id; done"
timeout = "3h"
rebase = "test"
"""
THREE_SERVICES = """  pg:
    build: postgres
    volumes:
      - pgdata:/var/lib/postgresql/data
    healthcheck:
      test: ["CMD", "pg_isready", "-h", "127.0.0.1", "-U", "postgres"]
      retries: 120
  cache:
    build: redis
    command: ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data"]
    healthcheck:
      test: ["CMD", "redis-cli", "ping"]
      retries: 120
volumes:
  pgdata:
"""
STACKS = {
    "shop": {"quick": "", "seed": '"python3 -m db.seed"', "inputs": '"db/**"', "suite": "ci"},
    "three": {
        "quick": 'quick = { pg = "postgresql", cache = "redis" }\n',
        "seed": '"python3 -m db.seed", "python3 three.py"',
        "inputs": '"db/**", "three.py", "postgres/**", "redis/**"',
        "suite": "suite",
    },
}


class Andon:
    """A farm of one box with one lane, for one driver, one kind of pool and one cycle."""

    def __init__(self, arguments, driver, pool):
        self.db, self.driver = arguments.image, driver
        self.shop, self.fixture = Path(arguments.shop), Path(arguments.three)
        self.farm = farm.Farm(arguments.andon, arguments.worker, arguments.state, ANDON_POOL_KIND=pool)

    @contextlib.contextmanager
    def up(self):
        with self.farm.up([self.db], "--lanes", "1", "--driver", self.driver):
            yield self

    def project(self, folder, stack, count, thinks):
        farm.copy_of(self.shop, folder, self.db)
        for file in ("rounds.py", "three.py"):
            shutil.copy(Path(__file__).parent / file, folder)
        compose = folder / "compose.yaml"
        text = compose.read_text()
        if stack == "three":
            for part in (self.fixture / "postgres", self.fixture / "redis", self.fixture.parent / "suite"):
                shutil.copytree(part, folder / part.name)
            services, volumes = text.split("volumes:\n  data:")
            text = f"{services}{THREE_SERVICES}  data:{volumes}"
        compose.write_text(text)
        ids = " ".join(f"{think}" for think in thinks)
        (folder / "andon.toml").write_text(PROJECT.format(stack=stack, ids=ids, count=count, **STACKS[stack]))
        farm.commit_all(folder)

    def blocks(self, folder, stack, count, thinks):
        """The rounds of one run: a block for each think time."""
        self.project(folder, stack, count, thinks)
        self.farm.call("run", cwd=folder)
        run = str(self.farm.json("show", cwd=folder)["run"])
        memory = peers.memory_mib(*self.farm.boxes())
        for think in thinks:
            log = self.farm.said("logs", run, f"{think}", cwd=folder)
            lines = [line.split(" ", 1) for line in log.splitlines() if line.startswith(("ROUND ", "BLOCK "))]
            block = next(json.loads(rest) for kind, rest in lines if kind == "BLOCK")
            yield think, [json.loads(rest) for kind, rest in lines if kind == "ROUND"], block, memory


@dataclasses.dataclass
class Row:
    """All rounds of one way."""

    label: str
    stack: str
    rounds: list = dataclasses.field(default_factory=list)
    memory_mib: list = dataclasses.field(default_factory=list)
    sustained: list = dataclasses.field(default_factory=list)
    drivers: list = dataclasses.field(default_factory=list)

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


def machine():
    return f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}"


class Cycles:
    """What was measured so far, in a file beside the page: a run of hours goes on where it was stopped, another day or elsewhere, at the cycle
    that it was in. `days` are those of the cycles, and their machines."""

    def __init__(self, file, about):
        self.file, self.about = file, about
        self.days, self.rows = [], {}
        if file.exists():
            held = json.loads(file.read_text())
            if held["about"] != about:
                raise SystemExit(f"{file} is of another run: {held['about']} there, {about} here; --fresh begins anew")
            self.days, self.rows = held["days"], {name: Row(**row) for name, row in held["rows"].items()}

    def keep(self):
        """Only whole cycles are kept: in each every way had its turns."""
        self.days.append(f"{datetime.date.today().isoformat()}, {machine()}")
        rows = {name: dataclasses.asdict(row) for name, row in self.rows.items()}
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps({"about": self.about, "days": self.days, "rows": rows}))
        draft.replace(self.file)


def right_of(way, seeded):
    """What the way's own server answers before it is spoiled: settings name folders, and those differ. The data may not."""
    if not hasattr(way, "right"):
        way.right = way.stack.ask(way.hosts)
        assert all(way.right[part] == seeded[part] for part in ("contents", "schema", "users")), way.name
    way.stack.first_answers(way.hosts)
    return way.right


def take_turns(ways, right, rows, count):
    for number in range(count):
        for way in ways:
            row = rows.setdefault(way.name, Row(way.label, way.stack.name))
            if hasattr(way, "round"):
                row.rounds.append(way.round(number))
                continue
            own_right = right_of(way, right)
            spoil = getattr(way, "spoil", None)
            way.hosts, done = rounds.one(way.stack, way.hosts, number, way.reset, own_right, spoil=spoil)
            row.rounds.append(done)
    for way in ways:
        if way.containers():
            rows[way.name].memory_mib.append(peers.memory_mib(*way.containers()))


def all_peers(arguments, db, first, copy, client):
    image, command = db
    yield peers.ColdStart(image, command)
    three = peers.seeded_three(db, arguments.three)
    for stack, services in ((rounds.Shop, {"db": db}), (rounds.stack_of("three"), three)):
        yield peers.RunOfImages(stack, services)
        yield peers.Testcontainers(stack, services)
        if shutil.which("docker-compose"):
            yield peers.Compose(stack, services, Path(arguments.scratch) / "compose")
    yield peers.KillAndCopy(image, command, copy, Path(arguments.scratch) / "copy")
    yield peers.Rollback(first)
    yield peers.Truncate(first)
    yield peers.Dump(first, client)
    if arguments.postgres:
        yield peers.Template(arguments.postgres)


PAGE = """# Rebase: a live seeded database back to its baseline

Docker Engine {engine}, {server}. Regenerate with `ci/bench rebase`, which goes on after the last whole cycle. In each cycle all rows take turns on one
machine; an absolute time means little elsewhere, the ratios do. Cycles so far: {cycles}.

## One server

{shop}

The stack is the sample shop's: one server, 200,000 rows, started with the options in `ci/sample/images/entrypoint.sh` in every row (but
PostgreSQL's). The clock is the same for all: from the moment the last client is gone to the first right answer, on a new connection, to a query
for rows that had been deleted. Before each round a client updates and deletes rows, makes a table, a user and a file, and changes a setting; after
it, when the clock has stopped, an oracle compares checksums of all tables, the schema with its AUTO_INCREMENTs, users, settings, tablespaces and
that file with the seeded state: any difference makes the round a failure, not a time. (Of a rolled back transaction only rows are spoiled.)

## Three servers

The same MySQL, a PostgreSQL (20,000 rows) and a Redis (1,000 keys), all three spoiled in each round, put back together and asked: roles, relations,
rows, keys and settings of the two besides. The clock stops when the last of the three has answered.

{three}

- A pool is how a lane's volumes are put back: `reflink` and `btrfs` in an image on this machine's disk, `overlay` and `copy` in a folder
  on it. A worker takes the first that it can have.
- Andon's rounds are asked for by a test, with `POST /rebase` on `ANDON_SOCKET`, on one lane of one worker, inside its nested daemon. The
  peers run on the machine's own engine.
- *CPU* is what all processors of the machine did in a round, whoever did it: from the first spoiling statement to the answer, and for
  `standby` with a test between also what goes on behind the test. *Memory* is what `docker stats` tells of the way's containers at the end;
  for Andon that is the whole worker box, with its daemon, agent, and every stack.
- Every way includes the server's own cold start but for `standby`, which has it behind the test; `rewind`, which does not end the server; and the
  three that keep the server and put back no more than one database.

## What `standby` costs

Nothing is free: it restarts as often as `restart` does, behind the tests, and holds more memory. Without any time between rebases there is
nothing to hide behind:

| stack, driver, pool | rebases a second, nothing between | CPU ms a rebase |
| --- | ---: | ---: |
{sustained}

One processor that does nothing but cold starts of this server would do {cold_rate:.2f} a second ({cold:.0f} ms each).
Rounds of `standby` in which the lane changed over: {changed} of {asked}; in the others it had but one stand, and restarted it. Rounds of
`rewind` in which the server was rewound: {rewound} of {to_rewind}; in the others it was restarted.
"""


HEAD = """| way | rounds | failures | min ms | p50 ms | p95 ms | p99 ms | max ms | beside `rm` + `run` | CPU ms a round | memory MiB |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def table(rows, figures, stack):
    base = figures[f"{stack}:rm+run"]["p50_ms"]
    lines = []
    for name, row in rows.items():
        if row.stack != stack:
            continue
        f = figures[name]
        keys = ("rounds", "failures", "min_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms")
        memory = f["memory_mib"] if f["memory_mib"] is not None else ""
        cells = [*(f[key] for key in keys), f"{f['p50_ms'] / base:.2f}×", f["cpu_ms"], memory]
        lines.append(f"| {row.label} | " + " | ".join(map(str, cells)) + " |")
    return HEAD + "\n".join(lines)


def page(rows, arguments, server, days):
    figures = {name: row.figures() for name, row in rows.items()}
    fast = [name for name, f in figures.items() if "sustained_per_s" in f and ("standby" not in name or name.endswith(":busy"))]
    sustained = [
        f"| {name.removesuffix(':busy').replace(':', ', ')} | {figures[name]['sustained_per_s']} | {figures[name]['sustained_cpu_ms']} |"
        for name in fast
    ]
    served = lambda wanted: [driver for name, row in rows.items() if f":{wanted}:" in name for driver in row.drivers]
    asked, to_rewind = served("standby"), served("rewind")
    text = PAGE.format(
        engine=peers.docker("version", "-f", "{{.Server.Version}}"),
        server=server,
        cycles="; ".join(days),
        shop=table(rows, figures, "shop"),
        three=table(rows, figures, "three"),
        sustained="\n".join(sustained),
        cold=figures["cold"]["p50_ms"],
        cold_rate=1000 / figures["cold"]["p50_ms"],
        changed=sum(driver == "standby" for driver in asked),
        asked=len(asked),
        rewound=sum(driver == "rewind" for driver in to_rewind),
        to_rewind=len(to_rewind),
    )
    Path(arguments.page).parent.mkdir(parents=True, exist_ok=True)
    Path(arguments.page).write_text(text)
    print(text)
    print(json.dumps({"benchmark": "rebase", **figures}))


def cycle(arguments, rows, ways, right, count):
    farms = dict.fromkeys((way.driver, way.pool) for way in ANDON_WAYS)
    for driver, pool in farms:
        with Andon(arguments, driver, pool).up() as andon:
            for stack in STACKS:
                own = {way.think: way for way in ANDON_WAYS if (way.driver, way.pool, way.stack) == (driver, pool, stack)}
                if not own:
                    continue
                folder = Path(arguments.scratch) / "project"
                for think, done, block, memory in andon.blocks(folder, stack, count, list(own)):
                    way = own[think]
                    row = rows.setdefault(way.name, Row(way.label, stack))
                    row.rounds += done
                    row.memory_mib.append(memory)
                    row.sustained.append(block["sustained"])
                    row.drivers += block["drivers"]
    take_turns(ways, right, rows, count)


def main():
    parser = argparse.ArgumentParser()
    for name in ("andon", "worker", "image", "shop", "three", "page", "state", "scratch", "kept", "tree"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--cycles", type=int, default=CYCLES)
    parser.add_argument("--postgres", default="")
    arguments = parser.parse_args()
    peers.clean()
    ways = []
    try:
        first, copy, db = peers.seeded(arguments.image, arguments.shop)
        with contextlib.closing(rounds.connect(peers.address(first))) as connection:
            server = f"server {connection.get_server_info()}"
            right = rounds.ask(connection)
        client = "mariadb" if "Maria" in server else "mysql"
        ways += all_peers(arguments, db, first, copy, client)
        count = max(1, arguments.rounds // arguments.cycles)
        cycles = Cycles(Path(arguments.kept), {"server": server, "tree of worker/": arguments.tree, "rounds of a cycle": count})
        while len(cycles.days) < arguments.cycles:
            cycle(arguments, cycles.rows, ways, right, count)
            cycles.keep()
            page(cycles.rows, arguments, server, cycles.days)
    finally:
        for way in ways:
            with contextlib.suppress(subprocess.CalledProcessError):
                way.close()
        peers.clean()


if __name__ == "__main__":
    main()
