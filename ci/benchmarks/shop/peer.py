"""What one would do without Andon, as a pytest plugin: the database is removed and run again before every test.

Loaded by `-p peer`. Reads from the environment: PEER_WAY (`rm+run`, `testcontainers`), PEER_IMAGE and PEER_COMMAND (the committed image and
how its server is started), PEER_NAME (of its containers), PEER_OUT (a line of JSON for each test). Tests find their server in
SHOP_DB_HOST. With PEER_RESET_S whoever started this process has run the server (`classes.py`), in so many seconds, and PEER_UNIT is the class
whose tests are run: SQLAlchemy makes its classes as they are collected, so none can be named on the command line.
"""

import json
import os
import time

import peers
import pytest
import rounds

WAYS = {"rm+run": peers.RunOfImages, "testcontainers": peers.Testcontainers}


class Peer:
    def __init__(self):
        self.given = os.environ.get("PEER_RESET_S")
        self.way, self.began, self.outcomes = None, 0.0, {}
        self.reset_s = float(self.given or 0)

    def fresh(self):
        """A new server on the committed data, and its first connection."""
        start = time.monotonic()
        if self.way is None:
            peers.PREFIX = os.environ["PEER_NAME"]
            services = {"db": (os.environ["PEER_IMAGE"], json.loads(os.environ["PEER_COMMAND"]))}
            self.way = WAYS[os.environ["PEER_WAY"]](rounds.Shop, services)
            hosts = self.way.hosts
        else:
            hosts = self.way.reset()
        host = hosts["db"]
        rounds.when_up(host).close()
        os.environ["SHOP_DB_HOST"] = host
        self.reset_s = time.monotonic() - start

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        unit = os.environ.get("PEER_UNIT")
        if unit:
            items[:] = [item for item in items if item.nodeid == unit or item.nodeid.startswith(unit + "::")]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid):
        if not self.given:
            self.fresh()
        self.began = time.monotonic()

    def pytest_runtest_logreport(self, report):
        worst = ("passed", "skipped", "failed")
        now = "passed" if report.passed else "skipped" if report.skipped else "failed"
        self.outcomes[report.nodeid] = max(self.outcomes.get(report.nodeid, "passed"), now, key=worst.index)

    def pytest_runtest_logfinish(self, nodeid):
        line = {"id": nodeid, "outcome": self.outcomes[nodeid], "reset_s": self.reset_s, "test_s": time.monotonic() - self.began}
        with open(os.environ["PEER_OUT"], "a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")

    def pytest_sessionfinish(self):
        if self.way is not None:
            self.way.close()


def pytest_configure(config):
    config.pluginmanager.register(Peer(), "peer-of-andon")
