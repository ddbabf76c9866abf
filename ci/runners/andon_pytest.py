"""Andon's eyes in pytest: finds tests, runs exactly those asked for, and reports each as it ends.

Loaded by ``-p andon_pytest`` from a folder on PYTHONPATH. Reads one job (JSON) from the path in ANDON_PYTEST_JOB, which
may be a named pipe: the process then waits there, before any of the project's code is imported. Writes events, one JSON
object a line, to the path that the job names (a file or a named pipe), whole lines in one write each.

Works with pytest 6 to 9 on Python 3.8 and newer, needs nothing else, and must not know Docker, lanes or the farm.

For projects: the fixture ``andon_rebase`` (a function that has the stack put back), the hook ``pytest_andon_rebased``.

Job, on one line:
        {"mode": "discover" | "run", "events": PATH, "tests": [ID, ...], "attempts": [N, ...], "timeout_ms": N,
         "rebase": BOOL, "env": {NAME: VALUE}}       rebase: have the stack put back before each test but the first
Events: {"e": "test", "id": ID}                       discover: a test
        {"e": "refused", "id": REPR, "why": TEXT}     discover: a test whose name cannot be carried
        {"e": "collect-error", "id": ID, "message": TEXT, "log": TEXT}
        {"e": "collected", "missing": [ID, ...]}      run: what was asked for and not found
        {"e": "start", "id": ID}
        {"e": "result", "id": ID, "outcome": "passed" | "failed" | "skipped", "ms": N, "message": TEXT, "log": TEXT}
        {"e": "timeout", "id": ID, "log": TEXT}       the limit passed: where it hangs and what it printed; it still runs
        {"e": "end"}                                  the session is over
"""

import contextlib
import http.client
import json
import os
import socket
import sys
import threading
import time
import traceback

import pytest

# Longest text of one kind in one event, in characters: half from its start, half from its end.
TEXT_MAX = 200_000
# A rebase is done, or has failed for good, within this; in seconds.
REBASE_LIMIT_S = 1800
# Longest message, in lines and characters.
MESSAGE_LINES_MAX = 20
MESSAGE_MAX = 4000


def _load_job():
    """Reads the job and takes every trace of Andon's own machinery out of the environment of the tests."""
    with open(os.environ.pop("ANDON_PYTEST_JOB"), encoding="utf-8") as job_file:
        # One line, not to the end: the other side of a named pipe stays open.
        job = json.loads(job_file.readline())
    here = os.path.dirname(os.path.abspath(__file__))
    paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and os.path.abspath(p) != here]
    if paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    else:
        os.environ.pop("PYTHONPATH", None)
    sys.path[:] = [p for p in sys.path if not p or os.path.abspath(p) != here]
    os.environ.update(job.get("env", {}))
    return job


def _clean(text):
    """Text that is valid UTF-8 and not longer than TEXT_MAX."""
    text = str(text)
    if len(text) > TEXT_MAX:
        half = TEXT_MAX // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n[… {left_out} characters left out …]\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _message(text):
    lines = str(text).strip("\n").splitlines()
    short = "\n".join(lines[:MESSAGE_LINES_MAX])
    return _clean(short[:MESSAGE_MAX])


class _Events:
    """Where events go. Survives tests that close file descriptors they do not own."""

    def __init__(self, path):
        self._path = path
        self._fd = None
        self._inode = None
        self._lock = threading.Lock()

    def _open(self):
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        found = os.fstat(self._fd)
        self._inode = (found.st_dev, found.st_ino)

    def _is_ours(self):
        if self._fd is None:
            return False
        try:
            found = os.fstat(self._fd)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._inode

    def send(self, **event):
        data = (json.dumps(event, ensure_ascii=True) + "\n").encode("ascii")
        with self._lock:
            # A test may have closed the descriptor, and something else may have its number now.
            if not self._is_ours():
                self._open()
            while data:
                data = data[os.write(self._fd, data) :]


class _Watchdog:
    """One thread that says where a test hangs when its limit passes. The farm kills; this only tells."""

    def __init__(self, events, limit_s):
        self._events = events
        self._limit_s = limit_s
        self._changed = threading.Condition()
        self._current = None
        self._deadline = None
        self._thread = None
        self._config = None
        self._pid = os.getpid()

    def watch(self, config, nodeid):
        if self._limit_s <= 0:
            return
        self._config = config
        with self._changed:
            self._current, self._deadline = nodeid, time.monotonic() + self._limit_s
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="andon-watchdog", daemon=True)
            self._thread.start()

    def rest(self):
        with self._changed:
            self._current = self._deadline = None

    @contextlib.contextmanager
    def paused(self):
        """The limit stands still."""
        with self._changed:
            current, deadline = self._current, self._deadline
            self._current = self._deadline = None
        began = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                if deadline is not None:
                    self._current, self._deadline = current, deadline + time.monotonic() - began
                    self._changed.notify()

    def _loop(self):
        me = threading.get_ident()
        with self._changed:
            while True:
                now = time.monotonic()
                if self._deadline is None:
                    self._changed.wait()
                elif now < self._deadline:
                    self._changed.wait(self._deadline - now)
                else:
                    nodeid, self._current, self._deadline = self._current, None, None
                    self._events.send(e="timeout", id=nodeid, log=_clean(self._state(me)))

    def _state(self, me):
        parts = []
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            if ident != me:
                stack = "".join(traceback.format_stack(frame))
                parts.append(f"--- stack of thread {names.get(ident, ident)} at the time limit ---\n{stack}")
        try:
            capture = self._config.pluginmanager.getplugin("capturemanager")
            out, err = capture.read_global_capture()
            for name, text in (("stdout", out), ("stderr", err)):
                if text:
                    parts.append(f"--- captured {name} so far ---\n{text}")
        except Exception:  # The stacks are worth sending without it.
            pass
        return "\n".join(parts)


class RebaseFailed(Exception):
    """The stack could not be put back. The farm ends the process, and runs its tests again elsewhere."""


def _rebase():
    """``POST /rebase`` on ANDON_SOCKET; answers with what came back, ``{"driver": NAME, "us": N}``."""
    path = os.environ.get("ANDON_SOCKET")
    if not path:
        raise RebaseFailed("there is no ANDON_SOCKET: these tests do not run in a lane of Andon's")
    connection = http.client.HTTPConnection("andon", timeout=REBASE_LIMIT_S)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(REBASE_LIMIT_S)
        connection.sock.connect(path)
        connection.request("POST", "/rebase")
        answer = connection.getresponse()
        said = answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise RebaseFailed(f"no answer: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise RebaseFailed(said.strip())
    return json.loads(said)


class _Hooks:
    """What a project may implement in its conftest.py."""

    def pytest_andon_rebased(self, config):
        """The stack was just put back: connections that were kept, in pools say, have been cut. Drop them."""


@pytest.fixture
def andon_rebase(request):
    """A function that has the stack put back, in the middle of a test. Connections to it are cut."""

    def rebase():
        return _PLUGIN.rebase(request.config)

    return rebase


class _Collection:
    """What both modes have in common."""

    def __init__(self, events):
        self._events = events

    def pytest_collectreport(self, report):
        if report.failed:
            text = report.longreprtext
            self._events.send(
                e="collect-error", id=_clean(report.nodeid), message=_message(_headline(report)), log=_clean(text)
            )


class _Discovery(_Collection):
    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config):
        config.option.collectonly = True
        config.option.verbose = -2
        _run_plainly(config)

    def pytest_collection_finish(self, session):
        seen = set()
        for item in session.items:
            try:
                item.nodeid.encode("utf-8")
            except UnicodeEncodeError:
                self._events.send(e="refused", id=ascii(item.nodeid), why="its name is not UTF-8")
                continue
            if item.nodeid not in seen:
                seen.add(item.nodeid)
                self._events.send(e="test", id=item.nodeid)

    def pytest_sessionfinish(self):
        self._events.send(e="end")


class _Execution(_Collection):
    def __init__(self, events, tests, attempts, limit_s, rebases):
        super().__init__(events)
        self._rebases = rebases
        # Something ran on the stack since it was put back.
        self._used = False
        self._attempts = dict(zip(tests, attempts))
        self._order = {nodeid: place for place, nodeid in enumerate(tests)}
        self._watchdog = _Watchdog(events, limit_s)
        self._config = None
        # Items still to run of each id: two items may share one.
        self._left = {}
        self._reports = {}
        self._began = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config):
        self._config = config
        _run_plainly(config)
        config.option.collectonly = False
        config.option.continue_on_collection_errors = True
        # The files are collected whole and the tests picked from them by their final ids (below): plugins may rename,
        # multiply and reorder items, and no id passes through pytest's parser of arguments.
        root = str(getattr(config, "rootpath", None) or config.rootdir)
        files = dict.fromkeys(nodeid.split("::", 1)[0] for nodeid in self._order)
        found = [path for path in (os.path.join(root, name) for name in files) if os.path.exists(path)]
        if found and not any("::" in path or "[" in path for path in found):
            config.args[:] = found
            source = getattr(type(config), "ArgsSource", None)
            if source is not None and hasattr(source, "ARGS"):
                config.args_source = source.ARGS

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        yield
        wanted = [item for item in items if item.nodeid in self._order]
        wanted.sort(key=lambda item: self._order[item.nodeid])
        items[:] = wanted
        for item in wanted:
            self._left[item.nodeid] = self._left.get(item.nodeid, 0) + 1
        missing = [nodeid for nodeid in self._order if nodeid not in self._left]
        self._events.send(e="collected", missing=missing)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid):
        if nodeid in self._began:
            return
        if self._rebases and self._used:
            try:
                self.rebase(self._config)
            except RebaseFailed as failure:
                pytest.exit(f"the stack was not put back: {failure}", returncode=3)
        self._used = True
        if nodeid in self._attempts:
            os.environ["ANDON_ATTEMPT"] = str(self._attempts[nodeid])
        self._began[nodeid] = time.perf_counter()
        self._events.send(e="start", id=nodeid)
        self._watchdog.watch(self._config, nodeid)

    def rebase(self, config):
        """Has the stack put back; the time it takes is no test's."""
        with self._watchdog.paused():
            done = _rebase()
        config.hook.pytest_andon_rebased(config=config)
        return done

    def pytest_runtest_logreport(self, report):
        self._reports.setdefault(report.nodeid, []).append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid):
        self._left[nodeid] = self._left.get(nodeid, 1) - 1
        if self._left[nodeid] > 0:
            return
        reports = self._reports.pop(nodeid, [])
        if not reports:
            return  # Interrupted: the farm sees a test that started and never ended.
        self._watchdog.rest()
        spent_ms = (time.perf_counter() - self._began.get(nodeid, time.perf_counter())) * 1000
        outcome, message = _judge(reports)
        self._events.send(
            e="result", id=nodeid, outcome=outcome, ms=round(spent_ms, 3), message=message, log=_log(reports)
        )

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self):
        self._watchdog.rest()
        self._events.send(e="end")


def _run_plainly(config):
    """Takes back options that would spread, cut short or narrow what was asked for."""
    for name, value in (
        ("maxfail", 0),
        ("lf", False),
        ("failedfirst", False),
        ("newfirst", False),
        ("stepwise", False),
        ("stepwise_skip", False),
        ("usepdb", False),
        # pytest-xdist: the farm spreads tests.
        ("dist", "no"),
        ("numprocesses", None),
        ("tx", []),
        ("looponfail", False),
    ):
        if hasattr(config.option, name):
            setattr(config.option, name, value)


def _judge(reports):
    """The outcome of a test and its message, from the reports of its phases."""
    failed = [report for report in reports if report.failed]
    if failed:
        first = failed[0]
        where = "" if first.when == "call" else f"error at {first.when}: "
        return "failed", _message(where + _headline(first))
    for report in reports:
        if report.skipped:
            if hasattr(report, "wasxfail"):
                return "skipped", _message(f"expected failure: {report.wasxfail}".rstrip(": "))
            return "skipped", _message(_skip_reason(report))
    return "passed", ""


def _headline(report):
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return f"{crash.message}\n({crash.path}:{crash.lineno})"
    return report.longreprtext


def _skip_reason(report):
    if isinstance(report.longrepr, tuple) and len(report.longrepr) == 3:
        reason = str(report.longrepr[2])
        return reason[len("Skipped: ") :] if reason.startswith("Skipped: ") else reason
    return report.longreprtext


def _log(reports):
    parts = []
    for report in reports:
        if report.failed and report.longreprtext:
            title = "failure" if report.when == "call" else f"error at {report.when}"
            parts.append(f"--- {title} ---\n{report.longreprtext}")
    # Each report holds the sections of the phases before it as well.
    for title, text in reports[-1].sections:
        if text:
            parts.append(f"--- {title} ---\n{text}")
    return _clean("\n".join(part.rstrip("\n") for part in parts) + "\n") if parts else ""


def _plugin():
    job = _load_job()
    events = _Events(job["events"])
    if job["mode"] == "discover":
        return _Discovery(events)
    limit_s = job.get("timeout_ms", 0) / 1000
    return _Execution(events, job["tests"], job.get("attempts", []), limit_s, job.get("rebase", False))


def pytest_addoption(parser, pluginmanager):
    """The first hook that runs after this module was loaded: the one place where the real plugin is registered."""
    pluginmanager.add_hookspecs(_Hooks)
    pluginmanager.register(_PLUGIN, "andon")


_PLUGIN = _plugin()
