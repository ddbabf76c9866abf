"""`figures.py RUN.json`: the figures of a run (`andon show RUN --json`) as a few lines for people."""

import json
import sys


def main():
    with open(sys.argv[1], encoding="utf-8") as run_file:
        run = json.load(run_file)
    counts, figures = run["counts"], run.get("figures") or {}
    shown = [f"{counts[name]} {name.replace('_', ' ')}" for name in
             ("passed", "failed", "flaky", "timed_out", "skipped", "infrastructure", "not_run") if counts.get(name)]
    print(f"      tests             {counts['total']}: {', '.join(shown)}")
    if run.get("wall_ms"):
        print(f"      wall time         {run['wall_ms'] / 1000:.1f} s, tests ran for {figures.get('testing_ms', 0) / 1000:.1f} s")
    print(f"      tests a minute    {figures.get('tests_per_minute', 0):.0f},"
          f" {figures.get('tests_per_minute_while_testing', 0):.0f} while tests ran")
    for of in figures.get("rebases", []):
        print(f"      rebase            {of['driver']}: p50 {of['p50_us'] / 1000:.0f} ms, p99 {of['p99_us'] / 1000:.0f} ms,"
              f" slowest {of['max_us'] / 1000:.0f} ms, {of['count']} of them")
    if figures.get("balance") is not None:
        print(f"      sharding balance  {figures['balance']:.2f} (busiest lane over the mean of {len(figures['lanes'])} lanes)")


if __name__ == "__main__":
    main()
