"""From a push to its first test, and a rerun of one test: by Andon, and by a job as one would write it, in turn.

Both sides are warm: images, the seeded data and (with Andon) the baseline are there before the clock runs. A test writes the time at
which it begins; both run the same test of the shop with the same pytest, and both start it on a pristine database.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
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

NAME = "andon-bench-latency"
PROJECT = "latency"
TEST = "tests/integration/test_catalogue.py::test_a_price_change_is_noted[7]"
ANDON_TOML = f"""[stack]
compose = "compose.yaml"
[baseline]
seed = ["python3 -m db.seed"]
inputs = ["db/**"]
[[suite]]
name = "shop"
image = {{ build = "ci" }}
runner = "pytest"
args = ["{TEST}"]
timeout = "60s"
rebase = "test"
[triggers]
branches = ["main"]
"""
STAMP = """import time


def pytest_runtest_setup(item):
    print(f"BEGAN {time.time_ns()}")


def pytest_runtest_teardown(item):
    print(f"ENDED {time.time_ns()}")
"""
PATIENCE_S = 120
WAYS = {"andon": "**Andon**", "hand": "a job by hand: checkout, `docker rm` + `run` of the seeded image, pytest in its image"}


def stamps_s(text):
    """When the test began and when it ended, seconds since 1970; None where the text does not say."""
    said = dict(line.split()[:2] for line in text.splitlines() if line.startswith(("BEGAN ", "ENDED ")))
    return [int(said[name]) / 1e9 for name in ("BEGAN", "ENDED")] if len(said) == 2 else None


def eventually(what, ask):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if (found := ask()) is not None:
            return found
        time.sleep(0.2)
    raise TimeoutError(f"{what}: not within {PATIENCE_S} s")


class Repository:
    """A working copy of the shop, and the bare repository that it is pushed to."""

    def __init__(self, arguments, folder):
        self.copy, self.bare = folder / "copy", folder / "origin.git"
        farm.copy_of(arguments.shop, self.copy, arguments.image)
        (self.copy / "andon.toml").write_text(ANDON_TOML)
        (self.copy / "conftest.py").write_text(STAMP)
        farm.commit_all(self.copy)
        farm.git(folder, "init", "-q", "--bare", "-b", "main", str(self.bare))
        farm.git(self.copy, "remote", "add", "origin", str(self.bare))

    def change(self, number):
        """A commit as a developer makes it: a line of code, not of the seed."""
        with (self.copy / "shop" / "money.py").open("a") as code:
            code.write(f"# change {number}\n")
        farm.git(self.copy, "commit", "-q", "-a", "-m", f"change {number}")
        return farm.git(self.copy, "rev-parse", "HEAD")

    def push(self):
        """Pushes; when that began, seconds since 1970."""
        began = time.time()
        farm.git(self.copy, "push", "-q", "origin", "main")
        return began


class Andon:
    """A push with the hook that `andon hook install` writes; a rerun as a developer types it."""

    def __init__(self, arguments, folder):
        self.farm = farm.Farm(arguments.andon, arguments.worker, arguments.state)
        self.image, self.repository, self.run = arguments.image, Repository(arguments, folder), None

    @contextlib.contextmanager
    def ready(self):
        with self.farm.up([self.image], "--lanes", "1"):
            self.farm.call("hook", "install", str(self.repository.bare), "--project", PROJECT, stdout=subprocess.DEVNULL)
            yield self

    def run_of(self, commit):
        def ask():
            runs = self.farm.json("list", "--project", PROJECT)
            runs = runs["runs"] if isinstance(runs, dict) else runs
            found = next((run for run in runs if run["commit"] == commit and run["over"]), None)
            return found and self.farm.json("show", str(found["run"]))

        return eventually(f"the run of {commit} ends", ask)

    def push(self, number):
        commit = self.repository.change(number)
        began = self.repository.push()
        run = self.run_of(commit)
        assert run["state"] == "passed", json.dumps(run)
        self.run = run["run"]
        first, _ = self.stamps(run)
        return {"ms": 1000 * (first - began), "asked": run["created_unix_ms"] - 1000 * began}

    def rerun(self, _):
        began = time.time()
        self.farm.call("rerun", str(self.run), f"shop/{TEST}", cwd=self.repository.copy, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took = time.time() - began
        run = self.farm.json("show", cwd=self.repository.copy)
        assert run["state"] == "passed" and run["rerun_of"], json.dumps(run)
        first, last = self.stamps(run)
        return {"ms": 1000 * took, "test": 1000 * (last - first), "before": 1000 * (first - began)}

    def stamps(self, run):
        # A verdict does not wait for what its test has printed.
        return eventually("the test's output", lambda: stamps_s(self.farm.said("logs", str(run["run"]), f"shop/{TEST}")))


class Hand:
    """The least that a job without Andon does for the same promise; no queue, no agent, nobody else on the machine."""

    WAIT = "import rounds, sys; rounds.when_up(sys.argv[1]).close()"

    def __init__(self, arguments, folder):
        self.repository, self.folder = Repository(arguments, folder), folder
        self.image, self.suite, self.command = f"{NAME}:seeded", f"{NAME}:suite", None
        self.arguments = arguments

    @contextlib.contextmanager
    def ready(self):
        def seed(host):
            environment = {**os.environ, "SHOP_DB_HOST": host}
            subprocess.run([sys.executable, "-m", "db.seed"], cwd=self.repository.copy, env=environment, check=True)

        first, copy, self.command = peers.committed(self.arguments.image, seed, NAME, self.image)
        peers.remove(first, copy)
        peers.docker("build", "-q", "--network", "host", "-t", self.suite, str(self.repository.copy / "ci"))
        try:
            yield self
        finally:
            peers.remove(f"{NAME}-db")
            subprocess.run(["docker", "rmi", "-f", self.image, self.suite], capture_output=True, check=False)

    def job(self, commit):
        """When the test began and ended."""
        checkout = self.folder / "checkout"
        shutil.rmtree(checkout, ignore_errors=True)
        farm.git(self.folder, "clone", "-q", str(self.repository.bare), str(checkout))
        farm.git(checkout, "checkout", "-q", commit)
        peers.remove(f"{NAME}-db")
        peers.docker("run", "-d", "--name", f"{NAME}-db", "--entrypoint", self.command[0], self.image, *self.command[1:])
        host = peers.address(f"{NAME}-db")
        subprocess.run([sys.executable, "-c", self.WAIT, host], env={**os.environ, "PYTHONPATH": str(HERE.parent / "rebase")}, check=True)
        said = peers.docker("run", "--rm", "--add-host", f"db:{host}", "-v", f"{checkout}:/src", self.suite, "python3", "-m", "pytest", "-q", "-rP",
                            "-p", "no:cacheprovider", TEST)
        return stamps_s(said)

    def push(self, number):
        commit = self.repository.change(number)
        began = self.repository.push()
        first, _ = self.job(commit)
        return {"ms": 1000 * (first - began)}

    def rerun(self, _):
        began = time.time()
        first, last = self.job("main")
        return {"ms": 1000 * (time.time() - began), "test": 1000 * (last - first), "before": 1000 * (first - began)}


def figures(rounds):
    ms = sorted(one["ms"] for one in rounds)
    found = {"rounds": len(ms), "p50_ms": round(statistics.median(ms)), "p95_ms": round(ms[min(len(ms) - 1, int(0.95 * len(ms)))]), "max_ms": round(ms[-1])}
    for part in sorted(set(rounds[0]) - {"ms"}):
        found[f"{part}_p50_ms"] = round(statistics.median(one[part] for one in rounds))
    return found


PAGE = """# From a push to its first test, and a rerun

{when}, {machine}, Docker Engine {engine}, load average {load}. Regenerate with `ci/bench latency`. All rows come from one run on one machine, the ways
taking turns; an absolute time means little elsewhere, the ratios do.

One test of the sample shop, on MySQL with 200,000 rows; images, seeded data and baseline are there. A pristine database for each.

## `git push` until the first test begins

| way | pushes | p50 ms | p95 | max | beside Andon |
| --- | ---: | ---: | ---: | ---: | ---: |
{push}

- The clock starts with `git push` of a commit that changes a line of code, and stops in the test's own set-up, inside pytest. It holds the push, the
  checkout, finding the tests (Andon asks pytest at each commit; the job by hand knows the name of its one test), a pristine database, and the start
  of pytest.
- Andon has been asked for the run {andon_push[asked_p50_ms]} ms after the push began.

## A rerun of one test, from the command to its end

| way | reruns | p50 ms | p95 | max | beside Andon | until the test begins, p50 ms | the test itself, p50 ms |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{rerun}

- Andon: `andon rerun RUN TEST` until it has said the verdict and ended. By hand: the job again, until its containers are gone.
- By hand nobody looks after a queue, keeps a result, or has another lane: it is the least that such a job can be.
"""


def page(arguments, found):
    of = {way: {what: figures(rounds) for what, rounds in kinds.items()} for way, kinds in found.items()}

    def rows(what, *more):
        for way, label in WAYS.items():
            f = of[way][what]
            cells = [f["rounds"], f["p50_ms"], f["p95_ms"], f["max_ms"], f"{f['p50_ms'] / of['andon'][what]['p50_ms']:.2f}×", *(f[key] for key in more)]
            yield f"| {label} | " + " | ".join(map(str, cells)) + " |"

    text = PAGE.format(
        when=datetime.date.today().isoformat(), machine=f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
        engine=peers.docker("version", "-f", "{{.Server.Version}}"), load=f"{os.getloadavg()[2]:.1f}", push="\n".join(rows("push")),
        rerun="\n".join(rows("rerun", "before_p50_ms", "test_p50_ms")), andon_push=of["andon"]["push"])
    Path(arguments.page).parent.mkdir(parents=True, exist_ok=True)
    Path(arguments.page).write_text(text)
    print(text)
    print(json.dumps({"benchmark": "latency", **of}))


def main():
    parser = argparse.ArgumentParser()
    for name in ("andon", "worker", "image", "shop", "state", "scratch", "page"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    arguments = parser.parse_args()
    scratch = Path(arguments.scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    ways = {"andon": Andon, "hand": Hand}
    found = {way: {"push": [], "rerun": []} for way in ways}
    with contextlib.ExitStack() as stack:
        for way, make in ways.items():
            (scratch / way).mkdir(parents=True)
            ways[way] = stack.enter_context(make(arguments, scratch / way).ready())
        # The first of each is for images, baseline and caches.
        for number in range(arguments.rounds + 1):
            for what in ("push", "rerun"):
                for way, one in ways.items():
                    took = getattr(one, what)(number)
                    if number > 0:
                        found[way][what].append(took)
        page(arguments, found)


if __name__ == "__main__":
    main()
