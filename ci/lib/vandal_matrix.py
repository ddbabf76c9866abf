"""The vandals over every driver, pool and kind of service (`ci/vandal --matrix`), or some: plans the cells, runs what is not done, writes the page.

One farm serves the kinds of a driver on a pool; its coordinator stays for the next, so images are sent and data is seeded once. A cell is run in
slices, and what a slice came to is one line of the results: whoever starts again goes on after the last. With a page they lie beside it and are
committed with it, so that hours of it can be spent in pieces.
"""

import argparse
import collections
import datetime
import json
import math
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import vandal

ROOT = Path(__file__).parents[2]
POOLS = ("reflink", "btrfs", "overlay", "copy")
DRIVERS = ("standby", "restart", "recreate", "rewind")
# Where files can have a second name; elsewhere `standby` serves.
REWOUND_POOLS = ("reflink", "copy")
# What a rebase and its probe take of a processor, roughly: those that cost less get more of the rebases.
COST = {"mysql": 1.6, "mariadb": 1.3, "postgres": 0.7, "redis": 0.5, "app": 0.5}
COST_OF_DRIVER = {"standby": 1.0, "restart": 1.0, "recreate": 1.5, "rewind": 1.2}
# No cell has fewer, where there are as many to share.
CELL_MIN = 100
# As much as is lost where it is stopped.
SLICE_MAX = 200
# A lane's first unit may find what nothing has touched: tests beyond those that are counted on.
CLEAN_SLACK = 4
CONTROL_TESTS = 8
DEEP_LINE, BAD_LINE = "a deep check found every byte in place", "a rebase failed"


def cells(of):
    """(pool, driver, kind) to how many rebases, for what was asked for."""
    every = [(pool, driver, kind) for pool in of.pools for driver in of.drivers for kind in of.kinds if driver != "rewind" or pool in REWOUND_POOLS]
    if not every:
        sys.exit(f"nothing to do: files have second names on {' and '.join(REWOUND_POOLS)} alone, so there is no rewind on {', '.join(of.pools)}")
    least = min(CELL_MIN, of.rebases // len(every))
    worth = {cell: 1 / (COST[cell[2]] * COST_OF_DRIVER[cell[1]]) for cell in every}
    left = of.rebases - least * len(every)
    return {cell: least + math.ceil(left * worth[cell] / sum(worth.values())) for cell in every}


class Farm:
    """A coordinator that stays, with boxes of one driver and pool at a time."""

    def __init__(self, arguments, plan):
        self.arguments, self.plan, self.state = arguments, plan, Path(arguments.work) / "state"
        self.with_images = False

    def call(self, *words, **options):
        environment = {**os.environ, "ANDON_STATE": str(self.state), "ANDON_DEEP_CHECK_EVERY": str(self.arguments.deep), **options.pop("env", {})}
        return subprocess.run([self.arguments.andon, *words], env=environment, text=True, **options)

    def up(self, driver, pool):
        of = self.arguments
        words = ["up", "--workers", str(of.workers), "--lanes", str(of.lanes), "--image", of.worker, "--driver", driver,
                 "--listen", f"127.0.0.1:{free_port()}"]
        self.call(*words, env={"ANDON_POOL_KIND": pool}, check=True)
        if not self.with_images:
            self.call("image", "add", *of.image, check=True)
            self.with_images = True
        workers = json.loads(self.call("worker", "list", "--json", check=True, stdout=subprocess.PIPE).stdout)
        served = {worker["pool"] for worker in workers if worker["connected"]}
        assert served == {pool}, f"the workers have pools {served}, not {pool}"

    def down(self, *more):
        self.call("down", *more, check=False, stdout=subprocess.DEVNULL)

    def said(self):
        """What the boxes have said until now of rebases: deep checks, and those that did not come out right."""
        lines = collections.Counter()
        farm = json.loads((self.state / "farm.json").read_text())["farm"]
        names = subprocess.run(["docker", "ps", "-a", "--filter", f"name=^andon-{farm}-", "--format", "{{.Names}}"],
                               check=True, text=True, capture_output=True).stdout.split()
        for name in names:
            log = subprocess.run(["docker", "logs", name], check=False, capture_output=True).stderr.decode("utf-8", "replace")
            lines.update({"deep": log.count(DEEP_LINE), "bad": log.count(BAD_LINE)})
        return lines

    def run(self, kind, tests, unit):
        """`tests`: how many, or FIRST+MANY."""
        project = Path(self.arguments.work) / "project"
        subprocess.run([ROOT / "tests/fixtures/vandal/assemble", project, kind, str(tests), unit], check=True)
        code = self.call("run", "--project", f"vandal-{kind}", cwd=project, stdout=subprocess.DEVNULL).returncode
        shown = json.loads(self.call("show", "--json", cwd=project, check=True, stdout=subprocess.PIPE).stdout)
        if not shown["tests"]:
            log = self.call("logs", str(shown["run"]), cwd=project, stdout=subprocess.PIPE, check=False).stdout
            raise RuntimeError(f"{kind}: the run ended with {code} and has no tests: {shown['reason']}\n{log[-3000:]}")
        return shown


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def one_slice(farm, cell, made):
    """The next tests of a cell, after those of its lines: a line of its own."""
    wanted = min(SLICE_MAX, farm.plan[cell] - sum(line["wanted"] for line in made))
    first = sum(line["tests"] for line in made)
    before, start = farm.said(), time.monotonic()
    found = vandal.count(farm.run(cell[2], f"{first}+{wanted + CLEAN_SLACK}", "test"))
    after, of = farm.said(), farm.arguments
    return {"cell": cell, "wanted": wanted, **found, "deep": after["deep"] - before["deep"], "bad_rebases": after["bad"] - before["bad"],
            "seconds": round(time.monotonic() - start), "day": datetime.date.today().isoformat(), "commit": of.commit,
            "lanes": of.lanes * of.workers, "deep_every": of.deep}


def control(farm, kind):
    found = vandal.count(farm.run(kind, CONTROL_TESTS, "never"))
    assert found["leaks"], f"{kind}: without rebases the probes find nothing: they do not bite"
    return {"control": kind, "tests": found["tests"], "leaks": len(found["leaks"])}


def note(path, line):
    with open(path, "a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")
        out.flush()
        os.fsync(out.fileno())


def noted(plan, path):
    """The lines that are there, without the cells of another plan."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if "cell" not in line or tuple(line["cell"]) in plan]


def by_cell(plan, lines):
    """Every cell's lines, in the order of the page."""
    made = {cell: [] for cell in sorted(plan, key=lambda cell: (DRIVERS.index(cell[1]), POOLS.index(cell[0]), list(COST).index(cell[2])))}
    for line in lines:
        if "cell" in line:
            made[tuple(line["cell"])].append(line)
    return made


def missing(plan, made):
    return [cell for cell in made if sum(line["wanted"] for line in made[cell]) < plan[cell]]


def work_through(arguments, plan, path):
    """Runs what no line tells of."""
    lines = noted(plan, path)
    made = by_cell(plan, lines)
    controlled = {line["control"] for line in lines if "control" in line}
    farm = Farm(arguments, plan)
    try:
        # Of whoever was stopped without a chance to.
        farm.down("--purge")
        for pool in arguments.pools:
            for driver in arguments.drivers:
                if any(cell[:2] == (pool, driver) for cell in missing(plan, made)):
                    print(f"==> {driver} on {pool}", flush=True)
                    serve(farm, (pool, driver), made, controlled, path)
    finally:
        farm.down("--purge")


def serve(farm, served, made, controlled, path):
    """All that is missing of a driver on a pool: a slice of each kind in turn, so that a part of it is of all."""
    farm.up(served[1], served[0])
    try:
        while turn := [cell for cell in missing(farm.plan, made) if cell[:2] == served]:
            for cell in turn:
                if cell[2] not in controlled:
                    note(path, control(farm, cell[2]))
                    controlled.add(cell[2])
                line = one_slice(farm, cell, made[cell])
                note(path, line)
                made[cell].append(line)
                tell(cell[2], line)
    finally:
        farm.down()


def tell(kind, line):
    print(f"    {datetime.datetime.now():%H:%M} {kind}: rebases={line['rebases']} by={line['drivers']} leaks={len(line['leaks'])}"
          f" failed={len(line['failed'])} deep={line['deep']} seconds={line['seconds']}", flush=True)
    for what in ("leaks", "failed"):
        for test, verdict, said in line[what][:5]:
            print(f"      {what}: {test}: {verdict}: {said}", flush=True)


PAGE = """# Vandals: does a rebase undo everything?

{machine}, Docker Engine {engine}. `{again}` goes on where it was stopped, with
`--fresh` it begins anew; what it came to so far is kept in [{results}]({results}): {made} of {planned} cells are made, {pieces}.

**{rebases:,} rebases, {leaks} leaks**, {failed} tests that failed in another way, {deep:,} rebases compared to the last byte.
By what really did it: {drivers}.

Every test begins with a probe of the whole stack and of its own container, which must find the baseline as it was recorded when it was made;
then it spoils what it can, in one of some 45 ways a kind, in orders that are never the same: rows, schema, code, users and rights,
settings (kept ones, too), files of the server's folder and of the rest of its container, overwritten and deleted, modes, owners, extended
attributes, odd files, processes, shared memory, ports, connections, transactions and locks that are left, the server stopped or locked up; of an
application its memory, environment, limits, threads and files. The ways and the probes are in `tests/fixtures/vandal`.

| driver | pool | kind | rebases | served by | leaks | failed | checked to the last byte | s |
| --- | --- | --- | ---: | --- | ---: | ---: | ---: | ---: |
{rows}

- Rebases are counted by what tests report: one before each. *Served by* is the driver that really did it: with `standby` a lane that has but one
  stand restarts it. Rebases of stacks that nothing had touched (`clean`, {clean} of them) are not counted.
- *Failed*: the test could not do its damage, or the farm could not run it. {reruns} attempts were repeated after infrastructure failures;
  {bad} rebases did not come out right by the worker's own checks, and were done again before a test saw them.
- {lanes} lanes in all; the pool is forced (`ANDON_POOL_KIND`): reflink and btrfs live in an image, overlay and copy on the machine's own
  file system. Of each stand every so many rebases are followed by a comparison of all bytes: `ANDON_DEEP_CHECK_EVERY={every}`.
- The counter-proof, in the same run: with `rebase = "never"` the probes found something in {control}. And where a cell is long enough to
  come to a way for the first time, the test looks once more when its damage is done: a probe that does not see it is a failure, too.
{worst}"""


def served_by(lines):
    drivers = collections.Counter()
    for line in lines:
        drivers.update(line["drivers"])
    return ", ".join(f"{name} {count}" for name, count in sorted(drivers.items()))


def total(lines, what):
    return sum(len(line[what]) if isinstance(line[what], list) else line[what] for line in lines)


def write_page(arguments, plan, lines):
    made = by_cell(plan, lines)
    found = [line for of in made.values() for line in of]
    rows = []
    for (pool, driver, kind), of in made.items():
        if of:
            sums = " | ".join(str(total(of, what)) for what in ("leaks", "failed", "deep", "seconds"))
            rows.append(f"| {driver} | {pool} | {kind} | {total(of, 'rebases')} | {served_by(of)} | {sums} |")
    bad = [f"- {what}: `{'/'.join(line['cell'])}`: `{test}`: {' '.join(said.split())[:300]}"
           for line in found for what in ("leaks", "failed") for test, _, said in line[what]]
    engine = subprocess.run(["docker", "version", "-f", "{{.Server.Version}}"], check=True, text=True, capture_output=True).stdout.strip()
    pieces = collections.Counter()
    for line in found:
        pieces[f"{line['day']} at {line['commit']}"] += line["rebases"]
    # Lines of old do not tell: they were made with two lanes, and each tenth rebase was compared.
    told = lambda key, old: " or ".join(map(str, sorted({line.get(key, old) for line in found})))
    text = PAGE.format(
        results=Path(arguments.results).name, again=arguments.again, made=len(plan) - len(missing(plan, made)), planned=len(plan),
        pieces=", ".join(f"{count:,} rebases on {piece}" for piece, count in sorted(pieces.items())),
        machine=f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}", engine=engine,
        rebases=total(found, "rebases"), drivers=served_by(found), leaks=total(found, "leaks"), failed=total(found, "failed"),
        deep=total(found, "deep"), clean=total(found, "clean"), reruns=total(found, "reruns"), bad=total(found, "bad_rebases"),
        lanes=told("lanes", 2), every=told("deep_every", 10), rows="\n".join(rows),
        control=", ".join(f"{line['leaks']} of {line['tests']} tests ({line['control']})" for line in lines if "control" in line),
        worst="\n## What leaked or failed\n\n" + "\n".join(bad) + "\n" if bad else "")
    Path(arguments.page).write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    for name in ("andon", "worker", "work", "results", "commit", "again"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("rebases", "workers", "lanes", "deep"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name, every in (("pools", POOLS), ("drivers", DRIVERS), ("kinds", list(COST))):
        parser.add_argument(f"--{name}", nargs="+", choices=every, required=True)
    parser.add_argument("--page", default="")
    parser.add_argument("--image", nargs="+", required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan, path = cells(arguments), Path(arguments.results)
    try:
        work_through(arguments, plan, path)
    finally:
        lines = noted(plan, path)
        if arguments.page and lines:
            write_page(arguments, plan, lines)
    done = [line for line in lines if "cell" in line]
    rebases, leaks, failed = (total(done, what) for what in ("rebases", "leaks", "failed"))
    print(f"rebases={rebases} leaks={leaks} failed={failed} by={served_by(done)} deep={total(done, 'deep')}")
    return 1 if leaks or failed or rebases < arguments.rebases else 0


if __name__ == "__main__":
    sys.exit(main())
