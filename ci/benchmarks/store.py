"""The page of `ci/bench store`, from the figures of both engines."""

import datetime
import json
import os
import platform
import sys

PAGE = """# Store: lists and runs out of {attempts:,} attempts

{when}, {cores} cores, Linux {kernel}. Regenerate with `ci/bench store`.

{runs:,} runs of 2,000 tests, each leased, ended, given its verdict and fed to the history, 1,000 to a transaction that is synced.
SQLite's file is then {size:,} MB. Each question is asked 50 times of the library that the coordinator uses, on the same machine.

| | SQLite | PostgreSQL 15 |
| --- | ---: | ---: |
| attempts filled a second | {sqlite[filled_per_s]:,.0f} | {postgres[filled_per_s]:,.0f} |
| list of the newest 20 runs, median ms | {sqlite[list_p50_ms]} | {postgres[list_p50_ms]} |
| … slowest ms | {sqlite[list_max_ms]} | {postgres[list_max_ms]} |
| list of one commit, median ms | {sqlite[list_of_a_commit_p50_ms]} | {postgres[list_of_a_commit_p50_ms]} |
| … slowest ms | {sqlite[list_of_a_commit_max_ms]} | {postgres[list_of_a_commit_max_ms]} |
| a run with its 2,000 tests and their attempts, median ms | {sqlite[show_p50_ms]} | {postgres[show_p50_ms]} |
| … slowest ms | {sqlite[show_max_ms]} | {postgres[show_max_ms]} |
"""

with open(sys.argv[1]) as sqlite, open(sys.argv[2]) as postgres:
    figures = {"sqlite": json.load(sqlite), "postgres": json.load(postgres)}
text = PAGE.format(
    when=datetime.date.today().isoformat(),
    cores=os.cpu_count(),
    kernel=platform.release().split("-")[0],
    attempts=figures["sqlite"]["attempts"],
    runs=figures["sqlite"]["runs"],
    size=int(sys.argv[3]),
    **figures,
)
with open(sys.argv[4], "w") as page:
    page.write(text)
print(text)
print(json.dumps({"benchmark": "store", **figures}))
