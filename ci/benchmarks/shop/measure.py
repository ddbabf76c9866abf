"""Runs whole suites on Andon and samples of them with its peers, in cycles, and writes the page.

The plan and the page; what a peer does before a test is in `peer.py`, the containers of both in `../rebase/peers.py`.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "rebase"), str(HERE.parent)]

import farm  # noqa: E402
import peers  # noqa: E402
import rounds  # noqa: E402

SEED = 20260
LANES = 2
# The one that does least, and the one that a worker takes by itself: in each cycle, and what all others are set beside.
MAIN_DRIVERS = ["rewind", "standby"]
# The others, which take as long as their servers: in the first cycle. All drivers have to come to the same verdicts.
SLOW_DRIVERS = ["restart", "recreate"]
NAME = "andon-bench-shop"
# Way, at a time: one process as one would write it, and one for each processor.
WAYS = [("rm+run", 1), ("rm+run", 2), ("testcontainers", 1)]
LABELS = {("rm+run", 1): "`docker rm` + `run` of the committed image before each", ("rm+run", 2): "the same, two at a time",
          ("testcontainers", 1): "Testcontainers for Python, the committed image, before each"}
# What there is in all, and what a first look takes of it.
SHOP_FILES, SHOP_QUICK = ["tests"], ["tests/integration/test_catalogue.py::test_a_price_change_is_noted"]
SQLALCHEMY_FILES, SQLALCHEMY_QUICK = ["test/dialect/mysql", "test/dialect/test_suite.py"], ["test/dialect/mysql/test_for_update.py"]
URL = "mysql+pymysql://scott:tiger@{host}:3306/test?charset=utf8mb4"
SQLALCHEMY_ARGS = ["--backend-only", "-p", "no:cacheprovider"]
# Verdicts that compare.
SAME = {"passed": "passed", "flaky": "passed", "failed": "failed", "skipped": "skipped"}
SHOP_TOML = """[stack]
compose = "compose.yaml"
[baseline]
seed = ["python3 -m db.seed"]
inputs = ["db/**"]
[[suite]]
name = "shop"
image = {{ build = "ci" }}
runner = "pytest"
args = {files}
timeout = "60s"
rebase = "test"
process = "shared"
"""
SQLALCHEMY_TOML = """[stack]
compose = "compose.yaml"
[baseline]
seed = ["python3 andon/setup.py"]
inputs = ["andon/setup.py"]
[[suite]]
name = "sqlalchemy"
image = {{ build = "andon" }}
runner = "pytest"
args = {files}
timeout = "120s"
rebase = "class"
"""


def unit_of(grain, test):
    """What shares a rebase: a test, or a class (the tests of a file outside of classes are one each)."""
    if grain == "test":
        return test
    return test.rsplit("::", 1)[0] if test.count("::") > 1 else test


class Andon:
    """A farm of one box with a lane for each processor, and one driver."""

    def __init__(self, arguments, driver):
        self.farm = farm.Farm(arguments.andon, arguments.worker, Path(arguments.state) / driver)
        self.image, self.driver = arguments.image, driver

    @contextlib.contextmanager
    def up(self):
        with self.farm.up([self.image], "--lanes", str(LANES), "--driver", self.driver):
            yield self

    def run(self, folder, *filters):
        """A run of all tests, or of those that the filters choose: what `show --json` tells, and what the processors did meanwhile."""
        began = rounds.busy_s()
        code = self.farm.call("run", *filters, check=False, cwd=folder, stdout=subprocess.DEVNULL).returncode
        assert code in (0, 100), f"andon run ended with {code}"
        worked = rounds.busy_s() - began
        return {**self.farm.json("show", cwd=folder), "cpu_s": worked}


def commit(folder, text):
    (folder / "andon.toml").write_text(text)
    farm.commit_all(folder)


class Suite:
    """One project: how it is seeded without Andon, and how one unit of it is run; `few` is a filter for some of its tests."""

    def __init__(self, name, grain, folder, seed, few):
        self.name, self.grain, self.folder, self.seed, self.few = name, grain, folder, seed, few
        self.runs = {driver: [] for driver in MAIN_DRIVERS + SLOW_DRIVERS}
        self.lines, self.walls = {way: [] for way in WAYS}, {way: [] for way in WAYS}
        self.image, self.command, self.units, self.verdicts = f"{NAME}:{name}", None, [], {}
        self.unequal = []

    def prepare(self, arguments):
        """The committed image of the seeded server, for the peers."""
        seed = lambda host: self.seed(host, self.folder)
        first, copy, self.command = peers.committed(arguments.image, seed, NAME, self.image)
        peers.remove(first, copy)

    def on_andon(self, andon):
        run = andon.run(self.folder)
        self.runs[andon.driver].append(run)
        verdicts = {test["id"]: SAME.get(test["verdict"], test["verdict"]) for test in run["tests"]}
        self.verdicts = self.verdicts or verdicts
        self.unequal += [f"`{andon.driver}`: {test}: {verdicts.get(test)}, at first {self.verdicts.get(test)}"
                         for test in sorted(verdicts.keys() | self.verdicts) if verdicts.get(test) != self.verdicts.get(test)]
        self.units = sorted({unit_of(self.grain, test) for test in self.verdicts})

    def sample(self, count, salt):
        return random.Random(SEED + salt).sample(self.units, min(count, len(self.units)))

    def on_peer(self, way, units, scratch):
        """A share of the units for each process; how long it took until the last was done."""
        name, at_a_time = way
        shares = [units[number::at_a_time] for number in range(at_a_time)]
        out = [scratch / f"{self.name}-{name}-{number}.jsonl" for number in range(at_a_time)]
        for path in out:
            path.unlink(missing_ok=True)
        start = time.monotonic()
        ways = [subprocess.Popen(self.call(share), cwd=self.folder, env=self.environment(name, number, path),
                                 stdout=path.with_suffix(".log").open("w"), stderr=subprocess.STDOUT)
                for number, (share, path) in enumerate(zip(shares, out)) if share]
        for process in ways:
            process.wait()
        self.walls[way].append((time.monotonic() - start, len(units)))
        done = [json.loads(line) for path in out if path.exists() for line in path.read_text().splitlines()]
        missing = set(units) - {unit_of(self.grain, line["id"]) for line in done}
        assert not missing, f"{self.name}, {name}: {sorted(missing)[:3]} did not run; see {out[0].with_suffix('.log')}"
        self.lines[way] += done

    def call(self, units):
        if self.grain == "test":
            return [sys.executable, "-m", "pytest", "-q", "-p", "peer", "-p", "no:cacheprovider", *units]
        return [sys.executable, str(HERE / "classes.py"), *units]

    def environment(self, way, number, out):
        return {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent / 'rebase'}", "PEER_WAY": way, "PEER_IMAGE": self.image,
                "PEER_COMMAND": json.dumps(self.command), "PEER_NAME": f"{NAME}-{number}", "PEER_OUT": str(out),
                "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TESTCONTAINERS_RYUK_DISABLED": "true"}

    def differences(self):
        return sorted({f"{way[0]}: {line['id']}: {line['outcome']}, on Andon {self.verdicts.get(line['id'])}" for way in WAYS
                       for line in self.lines[way] if SAME[line["outcome"]] != self.verdicts.get(line["id"])})

    def of_driver(self, runs):
        attempts = [attempt for run in runs for test in run["tests"] for attempt in test["attempts"]]
        wall = statistics.mean(run["wall_ms"] for run in runs) / 1000
        testing = statistics.mean(run["figures"]["testing_ms"] for run in runs) / 1000
        lane_s = LANES * testing / len(self.units)
        rebases = [attempt["rebase_us"] / 1e6 for attempt in attempts if attempt["rebase_us"] > 0]
        per_unit = len(runs) * len(self.units)
        tests_s = sum(attempt["run_ms"] for attempt in attempts) / 1000 / per_unit
        found = {
            "runs": len(runs), "s": round(wall, 1), "testing_s": round(testing, 1),
            "cpu_ms_a_unit": round(1000 * sum(run["cpu_s"] for run in runs) / per_unit),
            "rebases": len(rebases), "rebase_ms_p50": round(1000 * statistics.median(rebases), 1) if rebases else None,
            "by_driver": {of["driver"]: of["count"] for of in runs[-1]["figures"]["rebases"]},
            "lane_ms_a_unit": round(1000 * lane_s), "of_it_rebase_ms": round(1000 * sum(rebases) / per_unit),
            "of_it_tests_ms": round(1000 * tests_s),
        }
        found["of_it_else_ms"] = found["lane_ms_a_unit"] - found["of_it_rebase_ms"] - found["of_it_tests_ms"]
        return found

    def figures(self):
        """Of Andon the runs as they were; of a peer what the sample says of all units."""
        andon = {driver: self.of_driver(runs) for driver, runs in self.runs.items()}
        found = {"tests": len(self.verdicts), "units": len(self.units), "andon": andon, "differences": len(self.differences())}
        for way in WAYS:
            walls, count = map(sum, zip(*self.walls[way]))
            whole = walls / count * len(self.units)
            rates = [wall / units for wall, units in self.walls[way]]
            resets = [line["reset_s"] for line in self.lines[way]]
            found[f"{way[0]}/{way[1]}"] = {
                "sample": count, "s": round(whole, 1), "s_a_unit": round(walls / count, 3),
                "ratios": {driver: round(whole / andon[driver]["s"], 2) for driver in MAIN_DRIVERS},
                "spread": f"{min(rates):.3f}–{max(rates):.3f}", "reset_ms_p50": round(1000 * statistics.median(resets)),
            }
        return found


def seed_shop(host, folder):
    subprocess.run([sys.executable, "-m", "db.seed"], cwd=folder, env={**os.environ, "SHOP_DB_HOST": host}, check=True, stdout=subprocess.DEVNULL)


def seed_sqlalchemy(host, folder):
    # The script knows the server as `db`.
    code = "import pymysql, runpy, sys; real = pymysql.connect; pymysql.connect = lambda **of: real(**{**of, 'host': sys.argv[1]});" \
           " runpy.run_path('andon/setup.py')"
    subprocess.run([sys.executable, "-c", code, host], cwd=folder, check=True)


def suites(arguments):
    scratch = Path(arguments.scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    shop, sqlalchemy = scratch / "shop", scratch / "sqlalchemy"
    for sample, copy in ((arguments.shop, shop), (arguments.sqlalchemy, sqlalchemy)):
        farm.copy_of(sample, copy, arguments.image)
    files = SHOP_QUICK if arguments.quick else SHOP_FILES
    commit(shop, SHOP_TOML.format(files=json.dumps(files)))
    files = SQLALCHEMY_QUICK if arguments.quick else SQLALCHEMY_FILES
    words = [*files, f"--dburi={URL.format(host='db')}", *SQLALCHEMY_ARGS]
    commit(sqlalchemy, SQLALCHEMY_TOML.format(files=json.dumps(words)))
    return [Suite("shop", "test", shop, seed_shop, "test_a_price_change_is_noted"),
            Suite("sqlalchemy", "class", sqlalchemy, seed_sqlalchemy, "test_for_update")]


PAGE = """# Whole suites: a pristine database before every test, and every class

{when}, {machine}, Docker Engine {engine}. Regenerate with `ci/bench shop`. All of it comes from one run on one machine, in {cycles}, in
which Andon and the peers take turns; an absolute time means little elsewhere, the ratios do.

| suite | way | tests | wall s | {beside} | ms a unit | of it until the server answers, p50 |
| --- | --- | ---: | ---: | {rule} | ---: | ---: |
{rows}

- **Andon ran all tests; a peer ran a sample** (drawn with a fixed seed, another in each cycle), and its wall time is the sample's times the number of
  units. It would take hours else. Spread over the cycles, s a unit: {spread}.
- The shop: {shop[tests]} tests, each after a rebase, with `process = "shared"`. SQLAlchemy: {sqlalchemy[tests]} tests of its MySQL dialect, {sqlalchemy[units]}
  classes (`rebase = "class"`), a process of pytest for each class with Andon and with the peers.
- Andon: for each driver one worker with {lanes} lanes (the others stand idle meanwhile), images and baseline in place, the tests as yet unknown; the
  wall time is from asked to verdict. Peers run pytest on the machine itself, on its own engine, one process with a hook that removes and runs the
  database before each test; *two at a time* are two such processes with a database each, which is what as many processors allow.
- Each cycle has a run of all tests with {main}, the first one also with {slow}. Verdicts that differ between them: {unequal}.
- Verdicts of the sampled tests that differ from Andon's: {differences}.

## Where Andon's time goes

Of one lane, ms a unit; the processors' work is of the whole machine.

| suite, driver | in all | rebase that is waited for | tests | all else | CPU ms a unit | rebases by driver |
| --- | ---: | ---: | ---: | ---: | ---: | --- |
{profile}

A machine of {cores} cores cannot do more than {cores} s of work a second: where CPU × units ÷ {cores} is about the wall time, it is the work of a rebase (the
server's own start, mostly) that counts, and no longer when it is done. *All else* is what a lane does between: processes of
pytest, their imports, reports, waiting for the next unit.
"""


def names(drivers):
    return " and ".join(f"`{driver}`" for driver in drivers)


def page(arguments, all_suites):
    figures = {suite.name: suite.figures() for suite in all_suites}
    rows, profile, spreads, differ, unequal = [], [], [], [], []
    for suite in all_suites:
        f = figures[suite.name]
        for driver, of in f["andon"].items():
            ratios = " | ".join(f"{of['s'] / f['andon'][other]['s']:.2f}×" for other in MAIN_DRIVERS)
            rows.append(f"| {suite.name} | **Andon, `{driver}`** | {f['tests']} | {of['s']} | {ratios} | {1000 * of['s'] / f['units']:.0f}"
                        f" | {of['rebase_ms_p50']} |")
            served = ", ".join(f"{name} {count}" for name, count in of["by_driver"].items())
            profile.append(f"| {suite.name}, `{driver}` | {of['lane_ms_a_unit']} | {of['of_it_rebase_ms']} | {of['of_it_tests_ms']}"
                           f" | {of['of_it_else_ms']} | {of['cpu_ms_a_unit']} | {served} |")
        for way in WAYS:
            of = f[f"{way[0]}/{way[1]}"]
            ratios = " | ".join(f"{of['ratios'][driver]}×" for driver in MAIN_DRIVERS)
            rows.append(f"| {suite.name} | {LABELS[way]} | {of['sample']} of {f['units']} units | {of['s']} | {ratios}"
                        f" | {1000 * of['s_a_unit']:.0f} | {of['reset_ms_p50']} |")
            spreads.append(f"{suite.name} {way[0]} {way[1]}: {of['spread']}")
        differ += suite.differences()
        unequal += suite.unequal
    text = PAGE.format(
        when=datetime.date.today().isoformat(), machine=f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
        engine=peers.docker("version", "-f", "{{.Server.Version}}"), cycles=f"{arguments.cycles} cycle{'s'[:arguments.cycles > 1]}", rows="\n".join(rows), spread="; ".join(spreads),
        beside=" | ".join(f"beside `{driver}`" for driver in MAIN_DRIVERS), rule=" | ".join("---:" for _ in MAIN_DRIVERS),
        lanes=LANES, cores=os.cpu_count(), profile="\n".join(profile), differences="; ".join(differ) or "none",
        unequal="; ".join(unequal) or "none", main=names(MAIN_DRIVERS), slow=names(SLOW_DRIVERS), **figures)
    Path(arguments.page).parent.mkdir(parents=True, exist_ok=True)
    Path(arguments.page).write_text(text)
    print(text)
    print(json.dumps({"benchmark": "shop", **figures}))
    return 1 if differ or unequal else 0


def measure(arguments, all_suites):
    with contextlib.ExitStack() as stack:
        farms = {driver: stack.enter_context(Andon(arguments, driver).up()) for driver in MAIN_DRIVERS + SLOW_DRIVERS}
        for suite in all_suites:
            suite.prepare(arguments)
            for andon in farms.values():
                # Images and baselines are made before the clock runs.
                andon.run(suite.folder, suite.few)
        for cycle in range(arguments.cycles):
            for suite in all_suites:
                for driver in MAIN_DRIVERS:
                    suite.on_andon(farms[driver])
                count = (arguments.sample if suite.grain == "test" else arguments.classes) // arguments.cycles
                for number, way in enumerate(WAYS):
                    suite.on_peer(way, suite.sample(count, cycle * len(WAYS) + number), Path(arguments.scratch))
                if cycle == 0:
                    for driver in SLOW_DRIVERS:
                        suite.on_andon(farms[driver])
    return page(arguments, all_suites)


def main():
    parser = argparse.ArgumentParser()
    for name in ("andon", "worker", "image", "shop", "sqlalchemy", "state", "scratch", "page"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("sample", "classes", "cycles"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    all_suites = suites(arguments)
    try:
        return measure(arguments, all_suites)
    finally:
        left = peers.docker("ps", "-aq", "--filter", f"name={NAME}").split()
        if left:
            peers.remove(*left)
        for suite in all_suites:
            subprocess.run(["docker", "rmi", "-f", suite.image], capture_output=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
