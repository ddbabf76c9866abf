"""What others make of the same durations, in virtual time. Each takes a suite, a number of lanes and what each test costs besides
its own time, and answers with the makespan in microseconds.

pytest-split and pytest-xdist decide by their own code, from PyPI; only the tests' time is played. nextest's partitions are
restated: `count` deals the tests out one by one in their order, `hash` takes a hash of the name modulo the number of
shards (nextest's is xxHash, here it is BLAKE2). A shard runs on one lane, its tests one after the other.
"""

import hashlib
import heapq
from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace

from pytest_split.algorithms import Algorithms
from xdist.remote import Producer
from xdist.scheduler import LoadScheduling, WorkStealingScheduling


def of_shards(shards, suite, overhead_us):
    return max(sum(suite.us[place] + overhead_us for place in shard) for shard in shards)


def count(suite, lanes, overhead_us, _history):
    return of_shards([range(lane, len(suite.us), lanes) for lane in range(lanes)], suite, overhead_us)


def hashed(suite, lanes, overhead_us, _history):
    shards = [[] for _ in range(lanes)]
    for place, test in enumerate(suite.ids):
        digest = hashlib.blake2b(test.encode(), digest_size=8).digest()
        shards[int.from_bytes(digest, "big") % lanes].append(place)
    return of_shards(shards, suite, overhead_us)


@dataclass
class Item:
    nodeid: str
    place: int

    def __str__(self):
        return self.nodeid


def split(algorithm):
    def by_algorithm(suite, lanes, overhead_us, history):
        items = [Item(test, place) for place, test in enumerate(suite.ids)]
        # What it keeps of a test is set-up, call and tear-down: the overhead is in it.
        seconds = [(ms + overhead_us / 1000) / 1000 for ms in suite.history_ms]
        known = dict(zip(suite.ids, seconds, strict=True)) if history else {}
        groups = algorithm.value(lanes, items, known)
        return of_shards([[item.place for item in group.selected] for group in groups], suite, overhead_us)

    return by_algorithm


SHUTDOWN = None


class Node:
    """What xdist's scheduler sees of a worker, and what the worker does (xdist/remote.py): it begins a test once it knows the
    next one, or that there is none."""

    def __init__(self, name, play, suite, overhead_us):
        self.gateway = SimpleNamespace(id=name)
        self.shutting_down = False
        self.play, self.suite, self.overhead_us = play, suite, overhead_us
        self.queue = deque()
        self.next, self.has_next, self.running = SHUTDOWN, False, False

    def send_runtest_some(self, indices):
        self.queue.extend(indices)
        self.go_on()

    def send_steal(self, indices):
        wanted = set(indices)
        stolen = [place for place in self.queue if place in wanted]
        if len(stolen) == len(wanted):
            self.queue = deque(place for place in self.queue if place not in wanted)
        else:
            stolen = []
        self.play.post(0, self.play.unscheduled, self, stolen)

    def shutdown(self):
        self.shutting_down = True
        self.queue.append(SHUTDOWN)
        self.go_on()

    def go_on(self):
        if self.running:
            return
        if not self.has_next and self.queue:
            self.next, self.has_next = self.queue.popleft(), True
        if not self.has_next or (self.next is not SHUTDOWN and not self.queue):
            return
        if self.next is SHUTDOWN:
            self.running = True
            self.play.post(0, self.play.finished, self)
            return
        place, self.next = self.next, self.queue.popleft()
        self.running = True
        self.play.post(self.suite.us[place] + self.overhead_us, self.play.completed, self, place)


class Play:
    """The part of xdist's session that hears of its workers (xdist/dsession.py), on a clock that jumps from event to event."""

    def __init__(self, scheduler, suite, lanes, overhead_us):
        self.now_us, self.posted, self.events, self.done = 0, 0, [], 0
        self.suite, self.overhead_us, self.is_shutting_down = suite, overhead_us, False
        options = SimpleNamespace(getvalue=lambda _: [f"{lanes}*popen"], getoption=lambda _: None)
        self.scheduler = scheduler(options, Producer("", enabled=False))
        self.nodes = [Node(f"gw{lane}", self, suite, overhead_us) for lane in range(lanes)]

    def makespan_us(self):
        for node in self.nodes:
            self.scheduler.add_node(node)
            self.scheduler.add_node_collection(node, self.suite.ids)
        self.scheduler.schedule()
        last_us = 0
        while self.events:
            self.now_us, _, event, arguments = heapq.heappop(self.events)
            if event == self.completed:
                last_us = self.now_us
            event(*arguments)
            if self.scheduler.tests_finished and not self.is_shutting_down:
                self.is_shutting_down = True
                for node in self.scheduler.nodes:
                    node.shutdown()
        if self.done != len(self.suite.us):
            raise RuntimeError(f"{self.done} of {len(self.suite.us)} tests were run")
        return last_us

    def post(self, after_us, event, *arguments):
        self.posted += 1
        heapq.heappush(self.events, (self.now_us + after_us, self.posted, event, arguments))

    def completed(self, node, place):
        self.done += 1
        # The worker goes on before the scheduler hears of it.
        node.running = False
        node.go_on()
        self.scheduler.mark_test_complete(node, place, (self.suite.us[place] + self.overhead_us) / 1e6)

    def unscheduled(self, node, places):
        self.scheduler.remove_pending_tests_from_node(node, places)

    def finished(self, node):
        self.scheduler.remove_node(node)


def xdist(scheduler):
    return lambda suite, lanes, overhead_us, _history: Play(scheduler, suite, lanes, overhead_us).makespan_us()


# What the page calls it, whether a history makes a difference, how it is played.
PEERS = [
    ("nextest `count:m/n`", False, count),
    ("nextest `hash:m/n`", False, hashed),
    ("pytest-split `duration_based_chunks`", True, split(Algorithms.duration_based_chunks)),
    ("pytest-split `least_duration`", True, split(Algorithms.least_duration)),
    ("pytest-xdist `load`", False, xdist(LoadScheduling)),
    ("pytest-xdist `worksteal`", False, xdist(WorkStealingScheduling)),
]
