"""`compare.py VERDICTS.tsv RUN.json`: plain pytest's verdicts beside a run's (`andon show RUN --json`), test by test."""

import json
import sys
from collections import Counter


def main():
    with open(sys.argv[1], encoding="utf-8") as lines:
        plain = {tuple(line.rstrip("\n").split("\t")[:2]): line.rstrip("\n").split("\t")[2] for line in lines}
    with open(sys.argv[2], encoding="utf-8") as run_file:
        run = json.load(run_file)
    farm = {(test["suite"], test["id"]): test["verdict"] for test in run["tests"]}
    suites = {suite for suite, _ in farm}
    plain = {key: outcome for key, outcome in plain.items() if key[0] in suites}
    differ = [key for key in sorted(plain.keys() | farm.keys()) if plain.get(key) != farm.get(key)]
    for suite, test in differ:
        print(f"    differs: {suite}/{test}: plain {plain.get((suite, test), 'has it not')},"
              f" farm {farm.get((suite, test), 'has it not')}")
    print(f"    plain pytest: {dict(sorted(Counter(plain.values()).items()))}")
    print(f"    the farm:     {dict(sorted(Counter(farm.values()).items()))}")
    print(f"    {len(plain.keys() & farm.keys())} tests in both, {len(differ)} differences")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
