"""The vandals over every driver, pool and kind of service (`ci/vandal --matrix`): plans the cells, runs what is not done, writes the page.

One farm serves the five kinds of a driver on a pool; its coordinator stays for the next, so images are sent and data is seeded once. What a
cell came to is one line of the results: whoever starts again goes on after the last. With a page they lie beside it and are committed with it, so
that hours of it can be spent in pieces.
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
# Where files can have a second name, and what does not share memory; elsewhere `standby` serves.
REWOUND_POOLS, REWOUND_KINDS = ("reflink", "copy"), ("mysql", "mariadb", "redis", "app")
# What a rebase and its probe take of a processor, roughly: those that cost less get more of the rebases.
COST = {"mysql": 1.6, "mariadb": 1.3, "postgres": 0.7, "redis": 0.5, "app": 0.5}
COST_OF_DRIVER = {"standby": 1.0, "restart": 1.0, "recreate": 1.5, "rewind": 1.2}
# No cell has fewer, where there are as many to share.
CELL_MIN = 100
# A lane's first unit may find what nothing has touched: tests beyond those that are counted on.
CLEAN_SLACK = 4
CONTROL_TESTS = 8
DEEP_EVERY = 10
FARM_TRIES = 2
DEEP_LINE, BAD_LINE = "a deep check found every byte in place", "a rebase failed"


def cells(total):
    """(pool, driver, kind) to how many rebases."""
    every = [(pool, driver, kind) for pool in POOLS for driver in DRIVERS for kind in COST
             if driver != "rewind" or (pool in REWOUND_POOLS and kind in REWOUND_KINDS)]
    least = min(CELL_MIN, total // len(every))
    worth = {cell: 1 / (COST[cell[2]] * COST_OF_DRIVER[cell[1]]) for cell in every}
    left = total - least * len(every)
    return {cell: least + math.ceil(left * worth[cell] / sum(worth.values())) for cell in every}


class Farm:
    """A coordinator that stays, with boxes of one driver and pool at a time."""

    def __init__(self, arguments):
        self.arguments, self.state = arguments, Path(arguments.work) / "state"
        self.with_images = False

    def call(self, *words, **options):
        environment = {**os.environ, "ANDON_STATE": str(self.state), "ANDON_DEEP_CHECK_EVERY": str(DEEP_EVERY), **options.pop("env", {})}
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


def one_cell(farm, cell, wanted):
    before, start = farm.said(), time.monotonic()
    found = vandal.count(farm.run(cell[2], wanted + CLEAN_SLACK, "test"))
    after = farm.said()
    return {"cell": cell, "wanted": wanted, **found, "deep": after["deep"] - before["deep"], "bad_rebases": after["bad"] - before["bad"],
            "seconds": round(time.monotonic() - start), "day": datetime.date.today().isoformat(), "commit": farm.arguments.commit}


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
    return [line for line in lines if "cell" not in line or line["wanted"] == plan[tuple(line["cell"])]]


def work_through(arguments, plan, path):
    """Runs what no line tells of."""
    lines = noted(plan, path)
    done = {tuple(line["cell"]) for line in lines if "cell" in line}
    controlled = {line["control"] for line in lines if "control" in line}
    farm = Farm(arguments)
    try:
        # Of whoever was stopped without a chance to.
        farm.down("--purge")
        for pool in POOLS:
            for driver in DRIVERS:
                missing = [cell for cell in plan if cell[:2] == (pool, driver) and cell not in done]
                if missing:
                    print(f"==> {driver} on {pool}", flush=True)
                    serve(farm, plan, missing, controlled, path)
    finally:
        farm.down("--purge")


def serve(farm, plan, missing, controlled, path):
    pool, driver, _ = missing[0]
    farm.up(driver, pool)
    try:
        for cell in missing:
            if cell[2] not in controlled:
                note(path, control(farm, cell[2]))
                controlled.add(cell[2])
            line = one_cell(farm, cell, plan[cell])
            note(path, line)
            print(f"    {datetime.datetime.now():%H:%M} {cell[2]}: rebases={line['rebases']} by={line['drivers']} leaks={len(line['leaks'])}"
                  f" failed={len(line['failed'])} deep={line['deep']} seconds={line['seconds']}", flush=True)
            for what in ("leaks", "failed"):
                for test, verdict, said in line[what][:5]:
                    print(f"      {what}: {test}: {verdict}: {said}", flush=True)
    finally:
        farm.down()


PAGE = """# Vandals: does a rebase undo everything?

{machine}, Docker Engine {engine}. `ci/vandal --matrix --rebases {wanted} --page docs/benchmarks/vandal.md` goes on where it was stopped, with
`--fresh` it begins anew; what each cell came to is kept in [{results}]({results}). {made} of {planned} cells are made{pieces}.

**{rebases:,} rebases, {leaks} leaks**, {failed} tests that failed in another way, {deep:,} rebases compared to the last byte.

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
- One worker with {lanes} lanes; the pool is forced (`ANDON_POOL_KIND`): reflink and btrfs live in an image, overlay and copy on the machine's own
  file system. Each tenth rebase of a stand is a deep one (`ANDON_DEEP_CHECK_EVERY={every}`).
- The counter-proof, in the same run: with `rebase = "never"` the probes found something in {control}. And where a cell is long enough to
  come to a way for the first time, the test looks once more when its damage is done: a probe that does not see it is a failure, too.
{worst}"""


def write_page(arguments, plan, lines):
    found = [line for line in lines if "cell" in line]
    summed = lambda what: sum(len(line[what]) if isinstance(line[what], list) else line[what] for line in found)
    rows = []
    for line in sorted(found, key=lambda line: (DRIVERS.index(line["cell"][1]), POOLS.index(line["cell"][0]), list(COST).index(line["cell"][2]))):
        pool, driver, kind = line["cell"]
        served = ", ".join(f"{name} {count}" for name, count in sorted(line["drivers"].items()))
        rows.append(f"| {driver} | {pool} | {kind} | {line['rebases']} | {served} | {len(line['leaks'])} | {len(line['failed'])}"
                    f" | {line['deep']} | {line['seconds']} |")
    bad = [f"- {what}: `{'/'.join(line['cell'])}`: `{test}`: {' '.join(said.split())[:300]}"
           for line in found for what in ("leaks", "failed") for test, _, said in line[what]]
    engine = subprocess.run(["docker", "version", "-f", "{{.Server.Version}}"], check=True, text=True, capture_output=True).stdout.strip()
    pieces = collections.Counter(f"{line['day']} at {line['commit']}" for line in found)
    text = PAGE.format(
        results=Path(arguments.results).name, made=len(found), planned=len(plan), pieces="".join(f", {count} on {piece}" for piece, count in sorted(pieces.items())),
        machine=f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}", engine=engine,
        wanted=arguments.rebases, rebases=summed("rebases"), leaks=summed("leaks"), failed=summed("failed"), deep=summed("deep"),
        clean=summed("clean"), reruns=summed("reruns"), bad=summed("bad_rebases"), lanes=arguments.lanes, every=DEEP_EVERY, rows="\n".join(rows),
        control=", ".join(f"{line['leaks']} of {line['tests']} tests ({line['control']})" for line in lines if "control" in line),
        worst="\n## What leaked or failed\n\n" + "\n".join(bad) + "\n" if bad else "")
    Path(arguments.page).write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    for name in ("andon", "worker", "work", "results", "commit"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("rebases", "workers", "lanes"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--page", default="")
    parser.add_argument("--image", nargs="+", required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan, path = cells(arguments.rebases), Path(arguments.results)
    try:
        work_through(arguments, plan, path)
    finally:
        lines = noted(plan, path)
        if arguments.page and lines:
            write_page(arguments, plan, lines)
    done = [line for line in lines if "cell" in line]
    rebases, leaks, failed = (sum(map(of, done)) for of in
                              (lambda line: line["rebases"], lambda line: len(line["leaks"]), lambda line: len(line["failed"])))
    print(f"rebases={rebases} leaks={leaks} failed={failed} cells={len(done)} deep={sum(line['deep'] for line in done)}")
    return 1 if leaks or failed or rebases < arguments.rebases else 0


if __name__ == "__main__":
    sys.exit(main())
