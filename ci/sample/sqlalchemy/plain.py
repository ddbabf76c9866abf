"""Runs the suites of andon.toml with pytest alone; writes `suite, id, outcome, milliseconds` a line to stdout, all else to
stderr. The time is that of set-up, call and tear-down together."""

import os
import subprocess
import sys
import tomllib

PLUGIN = '''
import os, pytest

seen, seconds = {}, {}

def pytest_runtest_logreport(report):
    before = seen.get(report.nodeid, "passed")
    now = "passed" if report.passed else "skipped" if report.skipped else "failed"
    seen[report.nodeid] = max(before, now, key=("passed", "skipped", "failed").index)
    seconds[report.nodeid] = seconds.get(report.nodeid, 0) + report.duration

def pytest_sessionfinish():
    with open(os.environ["PLAIN_VERDICTS"], "w") as out:
        for nodeid, outcome in seen.items():
            out.write(f"{nodeid}\\t{outcome}\\t{seconds[nodeid] * 1000:.1f}\\n")
'''

with open("/tmp/plain_plugin.py", "w") as plugin:
    plugin.write(PLUGIN)
env = {**os.environ, "PLAIN_VERDICTS": "/tmp/verdicts", "PYTHONPATH": "/tmp"}
with open("andon.toml", "rb") as config:
    suites = tomllib.load(config)["suite"]
for suite in suites:
    call = [sys.executable, "-m", "pytest", "-p", "plain_plugin", *suite["args"]]
    code = subprocess.run(call, env=env, stdout=sys.stderr, check=False).returncode
    if code not in (0, 1):
        sys.exit(f"pytest ended with {code} in suite {suite['name']}")
    with open("/tmp/verdicts") as verdicts:
        for line in verdicts:
            sys.stdout.write(f"{suite['name']}\t{line}")
