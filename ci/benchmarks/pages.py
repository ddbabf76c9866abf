"""The page of `ci/bench pages`, from the figures of one run of it."""

import datetime
import json
import os
import platform
import sys

AIM_MS = 50

PAGE = """# Pages: the dashboard and the JSON API over {attempts:,} attempts

{when}, {cores} cores, Linux {kernel}. Regenerate with `ci/bench pages`; with `ANDON_BENCH_STATE=FOLDER` the database is kept there and made only once.

The history is made: {projects} projects with {commits:,} commits, each a run of {suites} suites, {tests:,} tests in all, from seed {seed} of the
public model in `coordinator/figures/src/made.rs`; what the model leaves open says `coordinator/examples/pages/history.rs`. Every run went in by the
records that a coordinator stores, a transaction a run, and into the ledger by the code that enters every run. That took {filled_s:,.0f} s
({per_s:,.0f} attempts a second).

| | |
| --- | ---: |
| SQLite's file | {database_mb:,.0f} MB, {per_attempt:,.0f} bytes an attempt |
| what tests printed, beside it | {outputs_mb:,.1f} MB (made output is alike, and the same is kept once) |
| memory of the coordinator after all questions | {memory_mb:,.0f} MB |
| its processor time for them | {cpu_s:,.1f} s, {cpu_ms:,.1f} ms each |

## Times

A coordinator in a process of its own, SQLite, nothing else asked meanwhile. Each address is asked {asked} times over HTTP on one connection, each time
of another run and test, spread over the whole history; from the question to the last byte of the answer. The aim is a median below {aim} ms: {aimed}.

| address | p50 ms | p99 ms | slowest ms | median answer, kB |
| --- | ---: | ---: | ---: | ---: |
{routes}

## What the figures find

What was done to the history is known, and held against what the store's figures say. *Found* is what a way told, *there* what it was to find; a change
counts as found where it is told within 5 runs, in the right direction, once. The moving average compares the mean of the last 5 runs with that of the
20 before. [figures.md](figures.md) has the same on more seeds, from the figures alone.

### Change points of suites, as the ledger holds them

Judged over the last 300 runs of a suite, its mean test each: what the project's page shows.

{suites_ways}

### Change points of suites, over all rows of the ledger

{suites_whole}

### Change points of tests

Of {tests_asked:,} tests, spread over all, as `/api/v1/projects/{{project}}/test` answers for its last 200 runs.

{tests_ways}

### Flaky tests

The same tests and runs: one is flaky there if it failed without being broken. The moving average calls a test flaky if between 5 % and 60 % of any
20 runs in a row had a failure.

{flaky}
"""


def ways(of):
    head = "| way | found | there | precision | recall | F1 |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    row = "| {name} | {found} | {there} | {precision:.2f} | {recall:.2f} | **{both:.2f}** |"
    rows = (row.format(name="**Andon**" if one["way"] == "Andon" else one["way"], **one) for one in of)
    return "\n".join([head, *rows])


def main():
    with open(sys.argv[1], encoding="utf-8") as figures_file:
        figures = json.load(figures_file)
    routes, scores = figures["routes"], figures["scores"]
    slow = [one["route"] for one in routes if one["p50_ms"] >= AIM_MS]
    row = "| `{route}` | {p50_ms} | {p99_ms} | {max_ms} | {kb:,.1f} |"
    text = PAGE.format(
        when=datetime.date.today().isoformat(),
        cores=os.cpu_count(),
        kernel=platform.release().split("-")[0],
        aim=AIM_MS,
        aimed="missed by " + ", ".join(f"`{route}`" for route in slow) if slow else "all are",
        attempts=figures["attempts"],
        projects=figures["projects"],
        commits=figures["commits"],
        suites=figures["suites"],
        tests=figures["tests"],
        seed=figures["seed"],
        filled_s=figures["filled_s"],
        per_s=figures["attempts"] / max(figures["filled_s"], 1e-9),
        database_mb=figures["database_bytes"] / 1e6,
        per_attempt=figures["database_bytes"] / figures["attempts"],
        outputs_mb=figures["outputs_bytes"] / 1e6,
        memory_mb=figures["memory_bytes"] / 1e6,
        cpu_s=figures["cpu_s"],
        cpu_ms=figures["cpu_s"] * 1e3 / (figures["asked"] * len(routes)),
        asked=figures["asked"],
        tests_asked=scores["tests_asked"],
        routes="\n".join(row.format(kb=one["bytes"] / 1e3, **one) for one in routes),
        suites_ways=ways(scores["suites"]),
        suites_whole=ways(scores["suites_whole"]),
        tests_ways=ways(scores["tests"]),
        flaky=ways(scores["flaky"]),
    )
    with open(sys.argv[2], "w", encoding="utf-8") as page:
        page.write(text)
    print(text)
    slowest = max(routes, key=lambda one: one["p50_ms"])
    print(json.dumps({
        "benchmark": "pages",
        "attempts": figures["attempts"],
        "database_bytes": figures["database_bytes"],
        "filled_s": figures["filled_s"],
        "slowest": slowest,
        "p99_ms": max(one["p99_ms"] for one in routes),
        "scores": scores,
    }))


if __name__ == "__main__":
    main()
