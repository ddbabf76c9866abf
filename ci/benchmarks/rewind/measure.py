"""Runs the rewind benchmark: a farm that compares every byte after each rewind, one that compares none, one that restarts; writes its page.

What a round is stands in `workloads.py`.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import farm  # noqa: E402

# In the order in which they are run, see `workloads.py`.
WORKLOADS = {
    "50MB": "twelve blobs of 4 MiB in a table of their own",
    "insert": "two rows",
    "update": "100 rows changed, 50 deleted",
    "ddl": "a table made and filled, one altered, one dropped",
    "users": "a user, its rights, another's password",
    "globals": "three settings",
    "mixed": "all of these, and a file",
}
# Checksums of all tables take longer than everything else in a round.
ORACLE_EVERY = 20
# Where every byte is compared nothing is timed, and both processors may be busy.
LANES = 2
COMPARED = "a deep check found every byte in place"
KEPT = re.compile(r"a stand is armed for rewinding .*kept_bytes=(\d+)")
# What an agent says of a rewind that was not exact, or of a stand that came back in another way.
NOT_IN_PLACE = re.compile(r"a rewind did not go well|a rebase failed|cannot be rewound")
PROJECT = """[stack]
compose = "compose.yaml"
[baseline]
seed = ["python3 -m db.seed"]
inputs = ["db/**"]
[[baseline.proof]]
service = "db"
engine = "mysql"
[[suite]]
name = "workloads"
image = {{ build = "ci" }}
discover = "printf '%s\\n' {names}"
run = "for name in {{tests}}; do python3 workloads.py $name {rounds} {every}; done"
timeout = "3h"
rebase = "test"
"""


def project(arguments, folder, count, oracle_every):
    farm.copy_of(arguments.shop, folder, arguments.image)
    here = Path(__file__).parent
    for file in (here / "workloads.py", here.parent / "rebase/rounds.py"):
        shutil.copy(file, folder)
    (folder / "andon.toml").write_text(PROJECT.format(names=" ".join(WORKLOADS), rounds=count, every=oracle_every))
    farm.commit_all(folder)


def said_by(boxes):
    """What they have said until now: comparisons of all bytes that found none, what did not go well, and bytes kept for a moment."""
    logs = [subprocess.run(["docker", "logs", one], check=True, capture_output=True).stderr.decode("utf-8", "replace") for one in boxes]
    lines = [line for log in logs for line in log.splitlines()]
    kept = [int(found[1]) for line in lines if (found := KEPT.search(re.sub(r"\x1b\[[0-9;]*m", "", line)))]
    return sum(COMPARED in line for line in lines), [line for line in lines if NOT_IN_PLACE.search(line)], max(kept, default=0)


def blocks(arguments, count, driver, lanes, compared_every=0):
    """What each workload came to on a farm that compares all bytes each so many rebases, and what its box said."""
    one = farm.Farm(arguments.andon, arguments.worker, arguments.state, ANDON_DEEP_CHECK_EVERY=str(compared_every))
    folder = Path(arguments.scratch) / "project"
    project(arguments, folder, count, ORACLE_EVERY if driver == "rewind" else 0)
    with one.up([arguments.image], "--lanes", str(lanes), "--driver", driver):
        one.call("run", cwd=folder)
        run = str(one.json("show", cwd=folder)["run"])
        found = {}
        for name in WORKLOADS:
            lines = one.said("logs", run, name, cwd=folder).splitlines()
            found[name] = json.loads(next(line for line in lines if line.startswith("BLOCK ")).removeprefix("BLOCK "))
        comparisons, troubles, kept = said_by(one.boxes())
        if compared_every == 1 and comparisons < count * len(WORKLOADS):
            sys.exit(f"{comparisons} comparisons were told of, fewer than there were rounds: {troubles}")
        if never := [name for name in WORKLOADS if not done_by(driver, found[name])]:
            sys.exit(f"{driver} put nothing back after {', '.join(never)}: {troubles}")
        return found, comparisons, troubles, kept


def spread(values):
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def done_by(driver, block):
    return [one for one in block["rounds"] if one["driver"] == driver]


def in_place(block):
    return len(done_by("rewind", block))


PAGE = """# Rewind: after each kind of test, to the last byte

{when}, {machine}, the sample shop's server (200,000 rows). Regenerate with `ci/bench rewind`.

**{rewinds:,} rewinds in place, {compared:,} times every byte compared with the baseline, {different} differences.**

| a test's work | rounds compared | in place | wrong first answers or oracles | oracles asked | timed rounds | rewind p50 ms | p99 ms | to the first right answer p50 ms | p99 ms | asked once more p50 ms | the work itself p50 ms | on a restarted server p50 ms |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

- Two farms of one worker, one after the other, the first with {lanes} lanes, the second with one. On the first every rewind is followed by a
  comparison, while the server is still frozen, of its memory, mappings, descriptors, registers and files with the baseline
  (`ANDON_DEEP_CHECK_EVERY=1`); on the second none is, and the times are from there. The first answer is asked for after each rewind of both;
  the oracle of the rebase benchmark (checksums of all tables, schema, AUTO_INCREMENT, users, settings, tablespaces, files) each {every}
  rounds, and the server is rewound once more after it.
- *Rewind* is what `POST /rebase` says that it took, *to the first right answer* what a test sees: the request, the rewind, a new connection
  and a query for rows; *asked once more*, the same connection and query again.
- *The work itself* is what a test's statements took on the rewound server, whose pages are protected until they are written to first; *on a
  restarted server*, the same statements in {restarted} rounds on a third farm, where nobody watches memory: each time the server was restarted, asked for all
  checksums, left alone for three seconds and asked the first question twice, so as to be as warm as that at the moment which is gone back to.
- {kept:.0f} MiB of memory are kept for the moment that is gone back to.
- The server is warm when the moment is taken: the proof of the baseline has read all tables once, as in the sample shop's own `andon.toml`.
- Rebases that were not done in place are restarts; what the agent said of them: {troubles}
"""


def page(arguments, compared, found, troubles, timed, kept, restarted):
    rows, figures = [], {}
    for name, what in WORKLOADS.items():
        proof, clock = found[name], timed[name]
        keys = ("rewind_ms", "ms", "again_ms", "work_ms")
        rewind, visible, again, work = (spread([one[key] for one in done_by("rewind", clock)]) for key in keys)
        unwatched = spread([one["work_ms"] for one in done_by("restart", restarted[name])])
        wrong = len(proof["wrong"]) + len(clock["wrong"])
        asked = proof["asked"] + clock["asked"]
        figures[name] = {"rounds": len(proof["rounds"]), "in_place": in_place(proof), "wrong": wrong, "p50_ms": rewind[0], "p99_ms": rewind[1],
                         "visible_p50_ms": visible[0], "visible_p99_ms": visible[1], "work_p50_ms": work[0], "unwatched_work_p50_ms": unwatched[0]}
        times = " | ".join(f"{value:.1f}" for value in (*rewind, *visible, again[0], work[0], unwatched[0]))
        rows.append(f"| `{name}`: {what} | {len(proof['rounds'])} | {in_place(proof)} | {wrong} | {asked} | {len(clock['rounds'])} | {times} |")
    different = sum("was not exact" in line for line in troubles)
    told = "; ".join(sorted({line.split("error=")[-1][:200] for line in troubles})) or "nothing"
    rewinds = sum(in_place(block) for block in [*found.values(), *timed.values()])
    text = PAGE.format(
        when=datetime.date.today().isoformat(), machine=f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
        rewinds=rewinds, compared=compared, different=different, rows="\n".join(rows), every=ORACLE_EVERY,
        lanes=LANES, kept=kept / (1 << 20), restarted=arguments.restarted, troubles=f"{told}.")
    Path(arguments.page).write_text(text)
    print(text)
    print(json.dumps({"benchmark": "rewind", "rewinds": rewinds, "compared": compared, **figures}))
    return all(figure["wrong"] == 0 for figure in figures.values()) and different == 0


def main():
    parser = argparse.ArgumentParser()
    for name in ("andon", "worker", "image", "shop", "page", "state", "scratch"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("compared", "timed", "restarted"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    found, compared, troubles, _ = blocks(arguments, arguments.compared, "rewind", LANES, compared_every=1)
    timed, _, more, kept = blocks(arguments, arguments.timed, "rewind", 1)
    restarted, *_ = blocks(arguments, arguments.restarted, "restart", 1)
    return 0 if page(arguments, compared, found, troubles + more, timed, kept, restarted) else 1


if __name__ == "__main__":
    sys.exit(main())
