"""A farm for one benchmark: `andon up` in a state folder of its own, its images, its commands; and the projects that it runs.

What is measured, and how, is each benchmark's own.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

BASE_IMAGE = "debian:trixie-slim"


class Farm:
    """One box, gone with all that it has when the block ends. `environment` is for all of its commands."""

    def __init__(self, binary, worker_image, state, **environment):
        self.binary, self.worker_image, self.state = binary, worker_image, Path(state)
        self.environment = {**os.environ, "ANDON_STATE": str(state), **environment}

    @contextlib.contextmanager
    def up(self, images, *flags):
        try:
            self.call("up", "--workers", "1", "--image", self.worker_image, "--listen", f"127.0.0.1:{free_port()}", *flags)
            self.call("image", "add", *images, BASE_IMAGE, stdout=subprocess.DEVNULL)
            yield self
        finally:
            self.call("down", "--purge", check=False, stdout=subprocess.DEVNULL)

    def boxes(self):
        """The ids of its own containers: other farms may be of the same image, or one of the name that it had."""
        farm = json.loads((self.state / "farm.json").read_text())["farm"]
        found = subprocess.run(["docker", "ps", "-aq", "--filter", f"label=dev.andon.farm={farm}"], check=True, text=True, capture_output=True)
        return found.stdout.split()

    def call(self, *words, check=True, **options):
        return subprocess.run([self.binary, *words], env=self.environment, check=check, text=True, **options)

    def said(self, *words, **options):
        """What a command printed."""
        return self.call(*words, stdout=subprocess.PIPE, **options).stdout

    def json(self, *words, **options):
        return json.loads(self.said(*words, "--json", **options))


def free_port():
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def git(folder, *words):
    """Runs git there, as somebody; what it printed."""
    who = ["-c", "user.name=bench", "-c", "user.email=bench@andon.invalid"]
    return subprocess.run(["git", "-C", str(folder), *who, *words], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def commit_all(folder):
    """Makes a folder a repository with all of its files in one commit."""
    for words in (["init", "-q", "-b", "main"], ["add", "-A", "-f"], ["commit", "-q", "--allow-empty", "-m", "bench"]):
        git(folder, *words)


def copy_of(sample, folder, image):
    """A sample's files in a new folder, with this machine's database image; an older copy there goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sample, folder, ignore=shutil.ignore_patterns("__pycache__", ".git"))
    with_database(folder, image)


def with_database(folder, image):
    """Puts the database image that this machine has into a sample's compose file."""
    compose = Path(folder) / "compose.yaml"
    compose.write_text(re.sub(r"image: andon-sample/\S+", f"image: {image}", compose.read_text()))
