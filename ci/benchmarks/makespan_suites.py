"""Suites of tests with their durations: drawn from distributions with a fixed seed, and SQLAlchemy's own as measured.

As a script it makes the file of SQLAlchemy's durations from the verdicts of two plain runs (`ci/sample/sqlalchemy/plain`):
`makespan_suites.py FIRST.verdicts.tsv SECOND.verdicts.tsv >sqlalchemy-durations.txt`.
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path

TESTS = 5000
FILES = 100
NOISE = 0.2  # of a history: the sigma of a lognormal factor on each test's duration
REAL = Path(__file__).with_name("sqlalchemy-durations.txt")


@dataclass
class Suite:
    """Its lists go together, in the order of discovery."""

    name: str
    ids: list[str]
    us: list[int]
    history_ms: list[float]


def us_of(ms):
    return [round(taken * 1000) for taken in ms]


def uniform(draw, _lanes):
    return [[draw.uniform(10, 1000) for _ in range(TESTS // FILES)] for _ in range(FILES)]


def lognormal(draw, _lanes):
    """Median 200 ms; half of the spread is the file's, half the test's own."""
    sigma = 1.5 / 2**0.5
    files = [200 * draw.lognormvariate(0, sigma) for _ in range(FILES)]
    return [[of_file * draw.lognormvariate(0, sigma) for _ in range(TESTS // FILES)] for of_file in files]


def pareto(draw, _lanes):
    """Each test by itself, so that its file says nothing of it; none is longer than a minute, as under a time limit."""
    return [[min(100 * draw.paretovariate(1.5), 60_000) for _ in range(TESTS // FILES)] for _ in range(FILES)]


def bimodal(draw, _lanes):
    """Nine files of ten are quick, one is not."""
    files = [draw.random() < 0.1 for _ in range(FILES)]
    slow, quick = lambda: max(draw.gauss(2000, 500), 50), lambda: draw.uniform(5, 50)
    return [[slow() if is_slow else quick() for _ in range(TESTS // FILES)] for is_slow in files]


def giant(share):
    """One test, anywhere, that takes so much of what each lane has to do."""

    def draw_giant(draw, lanes):
        files = uniform(draw, lanes)
        total = sum(map(sum, files))
        files[draw.randrange(FILES)][draw.randrange(TESTS // FILES)] = share * total / lanes
        return files

    return draw_giant


DRAWN = {
    "uniform": uniform,
    "lognormal": lognormal,
    "pareto": pareto,
    "bimodal": bimodal,
    "giant, a tenth": giant(0.1),
    "giant, nine tenths": giant(0.9),
}


def drawn(name, lanes, seed):
    draw = random.Random(f"{name} {seed}")
    files = DRAWN[name](draw, lanes)
    ids = [f"tests/test_{f:03}.py::Test::test_{t:03}" for f, tests in enumerate(files) for t in range(len(tests))]
    ms = [ms for tests in files for ms in tests]
    history = [taken * draw.lognormvariate(0, NOISE) for taken in ms]
    return Suite(name, ids, us_of(ms), history)


def real():
    """Two suites: one run with the other as its history, and the other way round."""
    ids, first, second = [], [], []
    for line in REAL.read_text().splitlines():
        if line.startswith("#"):
            continue
        unit, *times = line.split()
        for place, time in enumerate(times):
            ids.append(f"{unit}::test_{place:03}")
            before, after = map(float, time.split("/"))
            first.append(before)
            second.append(after)
    return [Suite("sqlalchemy", ids, us_of(second), first), Suite("sqlalchemy", ids, us_of(first), second)]


HEAD = """\
# Milliseconds that each of SQLAlchemy's tests for MySQL took in two runs of plain pytest (set-up, call and tear-down), as
# first/second, in the order in which pytest runs them. A line is a file and class. Made by makespan_suites.py from
# ci/sample/sqlalchemy/plain, which runs the suites of andon.toml on one MySQL server.
"""


def shrink(first, second):
    def read(path):
        lines = [line.split("\t") for line in Path(path).read_text().splitlines()]
        return {(suite, test): float(ms) for suite, test, _, ms in lines}

    first, second = read(first), read(second)
    units = {}
    for key in first:
        # Parameters may hold anything.
        unit = key[1].partition("[")[0].rpartition("::")[0]
        if key in second:
            units.setdefault(unit.replace(" ", "_"), []).append(f"{first[key]:.4g}/{second[key]:.4g}")
    print(HEAD, end="")
    for unit, times in units.items():
        print(unit, *times)


if __name__ == "__main__":
    shrink(*sys.argv[1:])
