"""How much work a coordinator accounts and how soon it gives out the next, with played workers over real gRPC, in several
sizes; and the page that holds the figures.

Each row is a coordinator of its own with an empty SQLite database on disk, and a load in another process beside it.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess

# (what the row shows, options of the load)
ROWS = [
    ("a unit of 10 tests at a time", {"workers": 1000, "tests": 1000000, "unit": 10, "think_ms": 300}),
    ("one test at a time", {"workers": 1000, "tests": 300000, "unit": 1, "think_ms": 80}),
    ("100 workers", {"workers": 100, "tests": 100000, "unit": 1, "think_ms": 20}),
    ("1,000 workers", {"workers": 1000, "tests": 100000, "unit": 1, "think_ms": 200}),
    ("5,000 workers", {"workers": 5000, "tests": 100000, "unit": 1, "think_ms": 1000}),
    ("10,000 tests queued", {"workers": 1000, "tests": 10000, "unit": 1, "think_ms": 1500}),
    ("100,000 tests queued", {"workers": 1000, "tests": 100000, "unit": 1, "think_ms": 200}),
    ("1,000,000 tests queued", {"workers": 1000, "tests": 1000000, "unit": 1, "think_ms": 200}),
]

PAGE = """# Dispatch: what a coordinator accounts, and how soon a lane gets its next work

{when}, {machine}, SQLite in WAL mode, synced at each commit, on {disk}.
Regenerate with `ci/bench dispatch`. Coordinator and load run side by side on these cores; an absolute figure means little
elsewhere.

| row | workers | tests queued at first | tests a unit | a unit takes | attempts/s | dispatch p50 ms | p99 ms | coordinator, cores | bytes a worker | bytes a queued test |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

- Every attempt is accounted whole: leased, reported, given its verdict and fed to the history, synced to disk, and then
  acknowledged; the figure counts acknowledged results. Reports that wait share one transaction.
- Each result brings 256 bytes of output of its own, which are synced beside the database before the row that speaks of them.
- Dispatch is measured at the worker: from sending that its lane is ready until its next assignment is there, while tests
  wait. Workers are played: each has a connection and a session of its own, one lane, heartbeats, and a timer for a test.
- The first two rows ask for more than ten thousand attempts a second; the others offer a load that grows with nothing but
  their own number.
- Memory is what is resident: after the tests were queued, less before, for each test; after the workers joined, for each
  worker (0 where what was freed before was enough).
"""


def measured(arguments, options):
    shutil.rmtree(arguments.state, ignore_errors=True)
    words = [f"{name}={value}" for name, value in options.items()]
    words += [f"seconds={arguments.seconds}", f"state={arguments.state}"]
    try:
        output = subprocess.run([arguments.load, *words], check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    finally:
        shutil.rmtree(arguments.state, ignore_errors=True)
    return json.loads(output.stdout)


def disk_of(path):
    os.makedirs(path, exist_ok=True)
    words = ["findmnt", "-n", "-o", "FSTYPE", "--target", path]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def line(label, figures):
    cells = [
        f"{figures['workers']:,}",
        f"{figures['tests']:,}",
        figures["unit"],
        f"{figures['think_ms']} ms",
        f"{figures['attempts_per_s']:,.0f}",
        figures["dispatch_p50_ms"],
        figures["dispatch_p99_ms"],
        figures["coordinator_cpus"],
        f"{figures['bytes_per_worker']:,}",
        f"{figures['bytes_per_queued_test']:,}",
    ]
    return f"| {label} | " + " | ".join(map(str, cells)) + " |"


def main():
    parser = argparse.ArgumentParser()
    for name in ("load", "state", "page"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seconds", type=int, required=True)
    arguments = parser.parse_args()
    disk = disk_of(arguments.state)
    figures = {}
    for label, options in ROWS:
        figures[label] = measured(arguments, options)
        print(line(label, figures[label]), flush=True)
    text = PAGE.format(
        when=datetime.date.today().isoformat(),
        machine=f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
        disk=disk,
        rows="\n".join(line(label, row) for label, row in figures.items()),
    )
    with open(arguments.page, "w") as page:
        page.write(text)
    print(text)
    print(json.dumps({"benchmark": "dispatch", **figures}))


if __name__ == "__main__":
    main()
