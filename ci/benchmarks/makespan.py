"""How long a run takes beside the bound, on Andon's core and on what others use, with the same durations; and the page."""

import argparse
import datetime
import itertools
import json
import math
import statistics
import subprocess
from importlib.metadata import version

from makespan_peers import PEERS
from makespan_suites import DRAWN, NOISE, TESTS, drawn, real

LANES = (4, 16, 64)
OVERHEADS_MS = (0, 50)
AIMS = {"first": 1.15, "history": 1.03}
NAMED = {"first": "first run", "history": "with history"}
GRAINS = {"test": "**Andon**, `rebase = \"test\"`", "batch": "**Andon**, `rebase = \"batch\"`"}


PAGE = """# Makespan: how long a run takes beside the bound

{when}; pytest-split {split}, pytest-xdist {xdist}. Regenerate with `ci/bench makespan`. Time is virtual: the figures are the same on
every machine.

Each figure is the makespan over the bound, which no order of the tests can beat: all lanes busy to the end, or the longest
test. 1.00 is the best there is. Where a row has two, the first is of a first run and the second of a run with history;
the others learn nothing from earlier runs. Andon's aim is {first} at first and {history} with history.

{tables}

## Where Andon misses its aim

{misses}

## Where a peer is better

{beaten}

## What the figures say

- With history the order is longest first, and the aim is met wherever tests are units. Batches miss it where what a batch
  costs is not small beside what a lane has to do at all (SQLAlchemy: 65 s of tests in all, so some seconds a lane).
- A first run is near the bound where the classes of tests tell something of their tests: one of each class goes ahead, and what it took
  is expected of the others. It is beyond the aim where nothing could tell: a giant that nobody has seen starts, on
  average, in the middle of the run, and so does the longest of durations that have nothing to do with their classes (`pareto`). No
  order that is chosen without the durations does better there, except by luck. Such a test is found once: from then on it starts first.
- pytest-xdist's `worksteal` is as good as a first run can be where tests run in the order of discovery and nothing is known.

## Conditions

- Andon's rows are its real core (`Core::step`) in virtual time: workers of up to four lanes, heartbeats, ticks, leases, one result
  for each test (`coordinator/core/examples/makespan/`). Messages take no time, for Andon and for the peers.
- pytest-split's algorithms and pytest-xdist's schedulers are their own code from PyPI, the latter with workers that take tests as
  xdist's do (`ci/benchmarks/makespan_peers.py`). nextest's partitions are restated: `count` deals the tests out in order,
  `hash` takes a hash of the name modulo the shards (BLAKE2 instead of xxHash). A shard runs on one lane. pytest-split without
  history takes all tests for equal.
- The overhead is what each test costs its lane besides its own time, a rebase say: 0 shows the order of the tests alone, 50 ms is
  what a quick rebase costs. It is the same for all rows and counts in the bound. A batch pays it once; its bound counts one
  batch for each lane. pytest-split's history has the overhead in it, as set-up is timed by pytest; Andon's has not.
- {tests:,} tests in 100 files, {seeds} seeds, the mean of them. `uniform`: 10 ms to 1 s. `lognormal`: median 200 ms, sigma 1.5, half of the
  variance the file's. `pareto`: from 100 ms, alpha 1.5, at most a minute, each test by itself. `bimodal`: nine files of
  ten 5 to 50 ms, one about 2 s. `giant`: uniform, and one test that takes a tenth or nine tenths of a lane's share.
- A history is an earlier run's durations with noise, a lognormal factor of sigma {noise} on each test. Not so `sqlalchemy`: these are the
  {real:,} tests of `ci/sample/sqlalchemy` in two runs of plain pytest (`ci/benchmarks/sqlalchemy-durations.txt`), each with the other as
  its history, {noise_real}. The mean is over both.
"""

def bound_us(suite, lanes, overhead_us):
    times = [us + overhead_us for us in suite.us]
    return max(-(-sum(times) // lanes), max(times))


def of_andon(program, suites, lanes):
    """The core's rows: ratios by label, kind of run, distribution and overhead."""
    asked = {
        "lanes": [lanes],
        "overheads_us": [ms * 1000 for ms in OVERHEADS_MS],
        "suites": [{**vars(suite), "history_ms": [round(ms) for ms in suite.history_ms]} for suite in suites],
    }
    output = subprocess.run([program], input=json.dumps(asked), check=True, stdout=subprocess.PIPE, text=True)
    for row in json.loads(output.stdout):
        kind = "history" if row["history"] else "first"
        yield GRAINS[row["grain"]], kind, row["suite"], row["overhead_us"] // 1000, row["ratio"]


def of_peers(suites, lanes):
    for suite in suites:
        for overhead_ms in OVERHEADS_MS:
            bound = bound_us(suite, lanes, overhead_ms * 1000)
            for label, learns, peer in PEERS:
                for kind in ("first", "history") if learns else ("first",):
                    ratio = peer(suite, lanes, overhead_ms * 1000, kind == "history") / bound
                    yield label, kind, suite.name, overhead_ms, ratio
                    if not learns:
                        yield label, "history", suite.name, overhead_ms, ratio


class Ratios:
    def __init__(self):
        self.all = {}

    def add(self, lanes, rows):
        for label, kind, suite, overhead_ms, ratio in rows:
            self.all.setdefault((lanes, overhead_ms, label, suite, kind), []).append(ratio)

    def mean(self, *key):
        return statistics.mean(self.all[key])

    def worst(self, *key):
        return max(self.all[key])

    def figures(self):
        """By lanes, overhead, row, suite and kind of run: the mean and the worst."""
        tree = {}
        for (lanes, overhead_ms, label, suite, kind), found in self.all.items():
            row = tree.setdefault(f"{lanes} lanes, {overhead_ms} ms", {}).setdefault(label.replace("*", ""), {})
            row.setdefault(suite, {})[kind] = [round(statistics.mean(found), 3), round(max(found), 3)]
        return tree


LEARNERS = {*GRAINS.values(), *(label for label, learns, _ in PEERS if learns)}


def table(ratios, suites, lanes, overhead_ms):
    lines = ["| | " + " | ".join(suites) + " |", "| --- |" + " ---: |" * len(suites)]
    for label in [*GRAINS.values(), *(label for label, _, _ in PEERS)]:
        cells = []
        for suite in suites:
            first, history = (f"{ratios.mean(lanes, overhead_ms, label, suite, kind):.2f}" for kind in AIMS)
            cells.append(f"{first} / {history}" if label in LEARNERS else first)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cases(suites):
    return itertools.product(AIMS, OVERHEADS_MS, LANES, suites)


def misses(ratios, suites):
    """Where a row of Andon's is beyond the aim."""
    for grain, label in GRAINS.items():
        for kind, overhead_ms, lanes, suite in cases(suites):
            key = (lanes, overhead_ms, label, suite, kind)
            if round(ratios.mean(*key), 2) > AIMS[kind]:
                ours, worst = f"{ratios.mean(*key):.2f}", f"{ratios.worst(*key):.2f}"
                yield f"| `{grain}` | {NAMED[kind]} | {overhead_ms} ms | {lanes} | {suite} | {ours} | {worst} |"


def beaten(ratios, suites):
    """Where the best of the peers is better than Andon, one test a unit, by more than a hundredth."""
    for kind, overhead_ms, lanes, suite in cases(suites):
        mean = lambda label: ratios.mean(lanes, overhead_ms, label, suite, kind)
        ours, best = mean(GRAINS["test"]), min((label for label, _, _ in PEERS), key=mean)
        if mean(best) < ours - 0.01:
            yield f"| {NAMED[kind]} | {overhead_ms} ms | {lanes} | {suite} | {best} | {mean(best):.2f} | {ours:.2f} |"


def listed(head, rows):
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *rows]
    return "\n".join(lines) if len(lines) > 2 else "Nowhere in these tables."


def noise_of(suite):
    """How far a history is from what came: the spread of its logarithm, of tests that take a millisecond or more."""
    pairs = zip(suite.us, suite.history_ms, strict=True)
    logs = [math.log(us / 1000 / ms) for us, ms in pairs if us >= 1000 and ms >= 1]
    return f"whose spread to each other is lognormal-like with sigma {statistics.pstdev(logs):.2f}"


def page(ratios, suites, arguments, of_sqlalchemy):
    heading = lambda lanes, ms: f"## {lanes} lanes, {f'an overhead of {ms} ms a test' if ms else 'no overhead'}"
    return PAGE.format(
        when=datetime.date.today().isoformat(),
        split=version("pytest-split"),
        xdist=version("pytest-xdist"),
        **AIMS,
        tables="\n\n".join(
            f"{heading(lanes, ms)}\n\n{table(ratios, suites, lanes, ms)}" for ms in OVERHEADS_MS for lanes in LANES
        ),
        misses=listed(["grain", "run", "overhead", "lanes", "suite", "mean", "worst seed"], misses(ratios, suites)),
        beaten=listed(["run", "overhead", "lanes", "suite", "peer", "its mean", "Andon's"], beaten(ratios, suites)),
        tests=TESTS,
        seeds=arguments.seeds,
        noise=NOISE,
        real=len(of_sqlalchemy.us),
        noise_real=noise_of(of_sqlalchemy),
    )


def main():
    parser = argparse.ArgumentParser()
    for name in ("program", "page"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seeds", type=int, required=True)
    arguments = parser.parse_args()
    ratios, of_sqlalchemy = Ratios(), real()
    names = [*DRAWN, of_sqlalchemy[0].name]
    for lanes in LANES:
        suites = [drawn(name, lanes, seed) for name in DRAWN for seed in range(arguments.seeds)] + of_sqlalchemy
        ratios.add(lanes, of_andon(arguments.program, suites, lanes))
        ratios.add(lanes, of_peers(suites, lanes))
        print(f"    {lanes} lanes played", flush=True)
    text = page(ratios, names, arguments, of_sqlalchemy[0])
    with open(arguments.page, "w") as file:
        file.write(text)
    print(text)
    print(json.dumps({"benchmark": "makespan", **ratios.figures()}))


if __name__ == "__main__":
    main()
