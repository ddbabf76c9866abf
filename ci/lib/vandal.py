"""`vandal.py [--control] RUN.json`: counts what the vandal project's run found, as one line; exit code 1 where it is bad.

With `--control` the run had no rebases, and it is bad where nothing leaked.
"""

import collections
import json
import sys

SAID_MAX = 400


def count(run):
    """What a run (`andon show --json`) found: rebases by driver, and what leaked or failed as (test, verdict, what was said)."""
    leaks, failed = [], []
    for test in run["tests"]:
        if test["verdict"] == "passed":
            continue
        said = " ".join(attempt["message"] or "" for attempt in test["attempts"])
        # A test whose process could not even start pristine says so in other words: only a plain pass is a pass.
        (leaks if "LEAK" in said else failed).append((test["id"], test["verdict"], said[:SAID_MAX]))
    attempts = [attempt for test in run["tests"] for attempt in test["attempts"]]
    rebased = collections.Counter(attempt["driver"] for attempt in attempts if attempt["rebase_us"] > 0)
    # Nothing had reached the stack: nothing was put back, so nothing is proved.
    clean = rebased.pop("clean", 0)
    return {"rebases": sum(rebased.values()), "drivers": dict(rebased), "clean": clean, "tests": len(run["tests"]),
            "leaks": leaks, "failed": failed, "reruns": len(attempts) - len(run["tests"])}


def main():
    control = sys.argv[1] == "--control"
    with open(sys.argv[-1], encoding="utf-8") as run_file:
        run = json.load(run_file)
    found = count(run)
    attempts = [attempt for test in run["tests"] for attempt in test["attempts"]]
    dirtied = sorted(attempt["dirtied_bytes"] for attempt in attempts if attempt["dirtied_bytes"] is not None)
    line = f"rebases={found['rebases']} leaks={len(found['leaks'])} failed={len(found['failed'])} tests={found['tests']}"
    for of in (run.get("figures") or {}).get("rebases", []):
        line += f" driver={of['driver']} p50_ms={of['p50_us'] / 1000:.0f} p99_ms={of['p99_us'] / 1000:.0f}"
    if dirtied:
        line += f" dirtied_p50_mb={dirtied[len(dirtied) // 2] / 1e6:.1f} dirtied_max_mb={dirtied[-1] / 1e6:.1f}"
    if control:
        print(f"    {line}: {'as it must be' if found['leaks'] else 'the probes do not bite'}")
        return 0 if found["leaks"] else 1
    for what in ("leaks", "failed"):
        for test, verdict, said in found[what][:20]:
            print(f"    {what}: {test}: {verdict}: {said}")
    print(line)
    return 1 if found["leaks"] or found["failed"] or not run["tests"] else 0


if __name__ == "__main__":
    sys.exit(main())
