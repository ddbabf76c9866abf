"""For ci/fuzz: seeds and dictionaries from the repository's own files, and what came of a search as a page or a line.

    fuzz.py seeds ROOT WORK              writes WORK/seeds/TARGET/* and WORK/dictionaries/TARGET
    fuzz.py page WORK SECONDS JOBS TARGET…   the page, from WORK/logs/TARGET.log, WORK/corpus and WORK/findings
    fuzz.py line WORK TARGET…                its last line alone
"""

import datetime
import hashlib
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys

COMMIT = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c"
# What stands for a place of a payload, as the tests fill it.
PLACES = {"$COMMIT": COMMIT, "$REF": "refs/heads/main", "$ACTION": "opened", "$BODY": "/andon rerun", "$LOGIN": "ann", "$ASSOCIATION": "MEMBER"}
# Which event a payload is of, by the middle of its name.
EVENTS = {
    "push": "push", "pull-request": "pull_request", "issue-comment": "issue_comment", "check-run": "check_run",
    "check-suite": "check_suite", "ping": "ping", "tag-push": "Tag Push Hook", "merge-request": "Merge Request Hook",
    "note": "Note Hook",
}  # fmt: skip
# Whose string literals are the words of a language: keys, elements, units, events.
SOURCES = {
    "junit": ["worker/src/runner/junit.rs", "worker/src/runner/junit/encoding.rs"],
    "compose": ["ci/src/config/compose/*.rs", "ci/src/config/measure.rs"],
    "andon_toml": ["ci/src/config/*.rs", "worker/src/runner/presets/*.rs"],
    "webhook": ["ci/src/forge/*.rs"],
}
# Marks of each language that no word of the sources is.
MARKS = {
    "junit": ["<testsuites>", "<testsuite", "</testsuite>", "<testcase", "</testcase>", "<failure", "<error", "<skipped", "<system-out>",
              "<![CDATA[", "]]>", "<!--", "-->", "<?xml", "<!DOCTYPE", "&lt;", "&amp;", "&#10;", "&#x1F600;", "/>", " name=\"", " time=\"",
              " classname=\"", " file=\"", " message=\"", "1,234.5", "\xff\xfe", "\xfe\xff", "encoding='ISO-8859-1'"],
    "compose": ["\n  ", "\n    ", ": ", "- ", "&a ", "*a", "<<: *a", "? ", "| \n", "> \n", "|+\n", "!!str ", "!x ", "---\n", "...\n", "{ ", " }", "[ ", " ]",
                "${A:-b}", "$$", "${A}", "\"", "'", "\\x1b", "~", "#", "condition: service_healthy", "CMD-SHELL"],
    "andon_toml": ["[[suite]]\n", "[[baseline.step]]\n", "[[baseline.proof]]\n", "[stack]\n", "[baseline]\n", "[policy]\n", "[triggers]\n", "[limits]\n",
                   " = ", "\"\"\"", "'''", "{ build = \".\" }", "[\"", "\"]", "\\u001b", "true", "false", "1979-05-27", "0x", "1e9", "{tests}",
                   "{junit}", "..", "/src", "**"],
    "webhook": ["\":", "null", "true", "[]", "{}", "\\u0000", "\\u001b", "refs/heads/", "refs/tags/", "/andon rerun", "/andon approve ", "0" * 40,
                COMMIT, "acme/shop", "-1", "1e99", "18446744073709551616"],
}  # fmt: skip


def seeds(root, work):
    """Both, anew: what is gone from the repository is no seed any more."""
    files = subprocess.run(["git", "-C", root, "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
    of = {target: [] for target in SOURCES}
    for name in files:
        path = root / name
        if name.startswith("worker/tests/junit/") and name.endswith(".xml"):
            of["junit"].append(path.read_bytes())
        elif re.fullmatch(r"(.*/)?compose\.ya?ml", name):
            of["compose"].append(path.read_bytes())
        elif re.fullmatch(r"(.*/)?andon\.toml", name):
            of["andon_toml"].append(path.read_bytes())
        elif name.startswith("ci/tests/payloads/"):
            of["webhook"] += deliveries(root, path)
    of["andon_toml"] += blocks(root / "docs/configuration.md", r"^\[+(stack|baseline|suite|policy|triggers|limits)")
    of["andon_toml"] += literals(root / "ci/src/config/tests.rs", "[[suite]]")
    of["compose"] += literals(root / "ci/src/config/compose/tests.rs", "services")
    of["junit"] += literals(root / "worker/src/runner/junit.rs", "<testcase")
    for target, found in of.items():
        folder = work / "seeds" / target
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        assert found, f"the repository has no seed for {target}"
        for content in found:
            (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)
        dictionary(root, work, target)


def deliveries(root, path):
    """A payload in each dialect that has such a one, behind the two bytes that say which."""
    source = (root / "fuzz/src/webhook.rs").read_text()
    listed = {
        name: re.findall(r'"((?:[^"\\]|\\.)*)"', re.search(rf"pub const {name}: [^=]*= \[(.*?)\];", source, re.S)[1])
        for name in ("DIALECTS", "EVENTS")
    }
    forge, _, kind = path.stem.partition("-")
    known = max((key for key in EVENTS if kind.startswith(key)), key=len)
    event = "Push Hook" if (forge, known) == ("gitlab", "push") else EVENTS[known]
    text = path.read_text()
    for place, value in PLACES.items():
        text = text.replace(place, value)
    also = {"gitlab": ["gitlab", "gitlab-signed"], "gitea": ["gitea", "forgejo"]}.get(forge, [forge])
    return [bytes([listed["DIALECTS"].index(dialect), listed["EVENTS"].index(event)]) + text.encode() for dialect in also]


def blocks(page, first):
    """The indented blocks of a page that begin with such a line, and all of them as one file."""
    lines = [line[4:] if line.startswith("    ") else None for line in page.read_text().split("\n")]
    found, block = [], []
    for line in [*lines, None]:
        if line is not None or (block and block[-1]):
            block.append(line or "")
        else:
            if block and any(re.match(first, line) for line in block):
                found.append("\n".join(block).encode() + b"\n")
            block = []
    return [*found, b"".join(found)]


def literals(file, holding):
    """The string literals of a Rust file that hold this: what its tests try."""
    text = file.read_text()
    plain = (bytes(found, "utf-8").decode("unicode_escape", "ignore") for found in re.findall(r'"((?:[^"\\]|\\.)*)"', text, re.S))
    raw = re.findall(r'r#"(.*?)"#', text, re.S)
    return [found.encode() for found in [*plain, *raw] if holding in found]


def dictionary(root, work, target):
    """libFuzzer's form: a quoted word a line, bytes escaped."""
    words = set(MARKS[target])
    for pattern in SOURCES[target]:
        for file in sorted(root.glob(pattern)):
            if not file.name.startswith("tests"):
                words.update(re.findall(r'"([A-Za-z_][A-Za-z0-9_.:-]{1,30})"', file.read_text()))
    if target == "andon_toml":
        words.update(re.findall(r'"([a-z_]{2,30})": \{', (root / "docs/andon.schema.json").read_text()))
    escaped = ("".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02X}" for b in w.encode("latin-1")) for w in words)
    folder = work / "dictionaries"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / target).write_text("".join(f'"{word}"\n' for word in sorted(escaped)))


def came_of(work, target):
    """The figures of a target's log."""
    text = (work / "logs" / f"{target}.log").read_text(errors="replace")
    number = lambda pattern: int((re.findall(pattern, text) or ["0"])[-1])  # noqa: E731
    ended = re.search(r"ended with (\d+) after (\d+) s", text)
    seconds = int(ended[2]) if ended else 0
    executions = number(r"stat::number_of_executed_units:\s+(\d+)") or number(r"(?m)^#(\d+)\s")
    findings = work / "findings" / target
    return {
        "target": target, "seconds": seconds, "executions": executions,
        "rate": executions // max(seconds, 1),
        "covered": number(r"cov: (\d+)"), "branches": number(r"Loaded 1 PC tables \((\d+) PCs\)"),
        "corpus": number(r"corp: (\d+)"), "seeds": len(list((work / "seeds" / target).iterdir())),
        "slowest": number(r"stat::slowest_unit_time_sec:\s+(\d+)"), "memory": number(r"stat::peak_rss_mb:\s+(\d+)"),
        "findings": sorted(file.name for file in findings.iterdir()) if findings.is_dir() else [],
        "stopped": "Ctrl-C or a signal" if "run interrupted" in text else "",
    }  # fmt: skip


def line(work, targets):
    """All targets as one line."""
    all_of = [came_of(work, target) for target in targets]
    total = {key: sum(one[key] for one in all_of) for key in ("executions", "seconds")}
    return f"targets={len(all_of)} executions={total['executions']} seconds={total['seconds']} findings={sum(len(one['findings']) for one in all_of)}"


def page(work, seconds, jobs, targets):
    """The page of docs/benchmarks."""
    template = pathlib.Path(__file__).with_name("fuzz.md").read_text()
    rows = []
    for target in targets:
        of = came_of(work, target)
        share = f"{of['covered']:,} of {of['branches']:,}"
        ended = of["stopped"] and f" ({of['stopped']})"
        rows.append(
            f"| `{target}` | {of['seconds']:,}{ended} | {of['executions']:,} | {of['rate']:,} | {share} | {of['seeds']} → {of['corpus']:,}"
            f" | {of['slowest']} s | {of['memory']} MB | {len(of['findings'])} |"
        )
    version = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    at_a_time = "one after the other" if jobs == 1 else f"{min(jobs, len(targets))} at once"
    return template.format(
        date=datetime.date.today().isoformat(), cores=os.cpu_count(), kernel=platform.release().split("-")[0], rustc=version,
        command=f"ci/fuzz {' '.join(targets)} --seconds {seconds} --jobs {jobs} --page docs/benchmarks/fuzz.md", at_a_time=at_a_time,
        rows="\n".join(rows), line=line(work, targets),
    )  # fmt: skip


def main():
    match sys.argv[1:]:
        case ["seeds", root, work]:
            seeds(pathlib.Path(root), pathlib.Path(work))
        case ["page", work, seconds, jobs, *targets]:
            sys.stdout.write(page(pathlib.Path(work), int(seconds), int(jobs), targets))
        case ["line", work, *targets]:
            print(line(pathlib.Path(work), targets))
        case _:
            sys.exit(__doc__)


main()
