"""A nested daemon from nothing to its first container, and its images put in place: Andon's way beside the usual one.

Everything happens in worker boxes: a data root is filled once per file system, then the ways take turns, so that a slow
minute of the machine hits all of them. Every clone of a data root is checked once: a daemon on it knows the image by the
same id and runs a container of it.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

DATA = "/var/lib/andon"
# Loop devices have no nodes in a container's own /dev.
PREPARE = f"""
for n in $(seq 0 63); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
cd {DATA}; mkdir -p xfs btrfs
"""
MAKE = f"""{PREPARE}
truncate -s 8G xfs.img btrfs.img; mkfs.xfs -q -m reflink=1 xfs.img; mkfs.btrfs -q btrfs.img
mount -o loop,noatime xfs.img xfs; mount -o loop,noatime btrfs.img btrfs
btrfs -q subvolume create btrfs/full
mkdir host
for root in xfs/full btrfs/full host/full; do /tool/nested load {DATA}/$root /run/fill /tool/image.tar >/dev/null; done
cp -a xfs/full xfs/plain; cp -a xfs/full xfs/andon
cp -a xfs/full xfs/linked; cp -a btrfs/full btrfs/linked; cp -a host/full host/linked
"""
# As one starts a box: the pool's file system is mounted, then the daemon starts. The data root has its images.
# The usual way needs writable control groups as well, where a container has version 1 of them; the agent sees to that itself.
WRITABLE = 'for at in /sys/fs/cgroup/*/cgroup.procs; do mount -o remount,rw,bind "${at%/*}" || true; done'
OUTER = PREPARE + WRITABLE + "\nmount -o loop,noatime xfs.img xfs; exec /tool/nested start {way} " + DATA + "/xfs/{way} /run/outer {image}"

# Label, how it is done in the box (its time is the tool's or the shell's), the clone's data root, how it is removed.
CLONES = {
    "load": ("`docker load` into an empty data root", "/tool/nested load {d}/xfs/new /run/load /tool/image.tar", "xfs/new", "rm -rf {d}/xfs/new"),
    "links-xfs": ("Andon: links, XFS", "/tool/nested renew {d}/xfs/linked", "xfs/linked", ":"),
    "links-btrfs": ("Andon: links, btrfs", "/tool/nested renew {d}/btrfs/linked", "btrfs/linked", ":"),
    "links-host": ("Andon: links, the host's file system", "/tool/nested renew {d}/host/linked", "host/linked", ":"),
    "snapshot": ("btrfs snapshot of the data root", "btrfs -q subvolume snapshot {d}/btrfs/full {d}/btrfs/new", "btrfs/new", "btrfs -q subvolume delete {d}/btrfs/new"),
    "reflink": ("`cp --reflink` of the data root, XFS", "cp -a --reflink=always {d}/xfs/full {d}/xfs/new", "xfs/new", "rm -rf {d}/xfs/new"),
    "copy": ("`cp` of the data root, the host's file system", "cp -a {d}/host/full {d}/host/new", "host/new", "rm -rf {d}/host/new"),
}
WAYS = {"andon": "Andon", "plain": "`dockerd`, its defaults"}

PAGE = """# Nested daemon: to the first container, and its images

{when}, {machine}, outer Docker Engine {engine}, nested Docker Engine of {box}, image {image} ({size} MB);
load average {load} when it began, {load_after} when it ended. Regenerate with `ci/bench daemon`. All rows come from one run on one machine, the ways taking turns; an absolute time means
little elsewhere, the ratios do.

## From nothing to the first container, images in place

| way | rounds | answers, p50 ms | first container runs, p50 ms | p95 | max | it has ended, p50 ms | from the outer `docker run` until it runs, p50 ms | max |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{starts}

- The clock of the first columns starts where the agent begins with its daemon (cgroups, folders, processes), inside a worker
  box that runs already. The last columns start with `docker run` of the box on the host and hold all of it: the box, the mount of
  the pool's file system, the daemon, a network and a container.
- Andon's first container is on a network of its own, as a lane's are; the other's is on the default bridge.
- Both data roots lie on the same XFS in a file, with the image in them.

## Images in a new data root

| way | rounds | p50 ms | p95 ms | max ms | beside `docker load` |
| --- | ---: | ---: | ---: | ---: | ---: |
{clones}

- Each clone was checked once: a daemon started on it knew the image by the id {id} and ran a container of it.
- *Links*: the layers of all images lie beside the data root, sealed; a new data root gets a link a layer and a verified copy of what
  the daemon knows of its images. It needs nothing of the file system. The time is the making of the new data root alone.
- A snapshot or a copy of a whole data root is for comparison; Andon makes none.
"""


def command(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


class Box:
    """Worker boxes on this machine's engine, with the tool and one volume."""

    def __init__(self, options):
        self.options = options
        if options.drop:
            rights = ["--cap-add=ALL", f"--cap-drop={options.drop}", "--security-opt=seccomp=unconfined",
                      "--security-opt=apparmor=unconfined", "--security-opt=systempaths=unconfined",
                      "--device-cgroup-rule=a *:* rwm"]
        else:
            rights = ["--privileged"]
        self.flags = [*rights, "--cgroupns=private", "-v", f"{options.volume}:{DATA}",
                      "-v", f"{Path(options.tool).resolve()}:/tool:ro"]

    def up(self):
        command("docker", "run", "-d", "--init", "--name", self.options.box, *self.flags, "--entrypoint", "sleep",
                self.options.box_image, "infinity")

    def shell(self, script):
        return command("docker", "exec", self.options.box, "bash", "-euc", script)

    def timed(self, script):
        """How long a script takes in the box, in ms; a tool's own word counts more than the shell's."""
        said = self.shell(f'a=$(date +%s%N); {script}; b=$(date +%s%N); echo "{{\\"shell_ms\\": $(((b - a) / 10000))e-2}}"')
        lines = [json.loads(line) for line in said.splitlines()]
        merged = {key: value for line in lines for key, value in line.items()}
        return merged.get("load_ms") or merged.get("renew_ms") or merged["shell_ms"]

    def start(self, way, root):
        said = self.shell(f"/tool/nested start {way} {DATA}/{root} /run/{way} {self.options.image}; rm -rf /run/{way}")
        return json.loads(said)

    def outer(self, way):
        """From the host's `docker run` of a box to its first container."""
        script = OUTER.replace("{way}", way).replace("{image}", self.options.image)
        began = time.monotonic()
        words = ["docker", "run", "--rm", "--init", "--name", self.options.box + "-outer", *self.flags,
                 "--entrypoint", "bash", self.options.box_image, "-euc", script]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            line = process.stdout.readline()
            took = (time.monotonic() - began) * 1000
        if process.returncode:
            raise SystemExit(f"the box of way {way} ended with {process.returncode}")
        told = json.loads(line)
        return took - (told["container_ended_ms"] - told["container_started_ms"])


def figures(times):
    ordered = sorted(times)
    at = lambda share: round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1)  # noqa: E731
    return {"rounds": len(ordered), "p50_ms": round(statistics.median(ordered), 1), "p95_ms": at(0.95),
            "max_ms": round(ordered[-1], 1)}


def check(box, wanted):
    for name, (_, make, root, remove) in CLONES.items():
        box.shell(make.format(d=DATA))
        found = box.start("andon", root)["image"]
        if found != wanted:
            raise SystemExit(f"{name}: the image is {found}, not {wanted}")
        box.shell(remove.format(d=DATA))


def measure(box, options):
    starts = {way: {"answers": [], "runs": [], "ended": [], "outer": []} for way in WAYS}
    clones = {name: [] for name in CLONES}
    box.up()
    box.shell(MAKE)
    wanted = box.start("andon", "xfs/andon")["image"]
    check(box, wanted)
    for number in range(options.rounds):
        for way in WAYS:
            told = box.start(way, f"xfs/{way}")
            for key, of in (("answers", "answers_ms"), ("runs", "container_started_ms"), ("ended", "container_ended_ms")):
                starts[way][key].append(told[of])
        for name, (_, make, _, remove) in CLONES.items():
            clones[name].append(box.timed(make.format(d=DATA)))
            box.shell(remove.format(d=DATA))
        print(f"    round {number + 1} of {options.rounds}", flush=True)
    # The file systems are the volume's: the outer boxes mount them, so this one has to let go of them.
    command("docker", "rm", "-f", options.box)
    for _ in range(options.rounds):
        for way in WAYS:
            starts[way]["outer"].append(box.outer(way))
    return starts, clones, wanted


def main():
    parser = argparse.ArgumentParser()
    for name in ("box", "volume", "box-image", "image", "tool", "page"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--drop", help="the capability that this host lacks")
    options = parser.parse_args()
    load = os.getloadavg()[1]
    starts, clones, image_id = measure(Box(options), options)
    start_figures = {way: {key: figures(times) for key, times in of.items()} for way, of in starts.items()}
    clone_figures = {name: figures(times) for name, times in clones.items()}
    rows = []
    for way, label in WAYS.items():
        f = start_figures[way]
        rows.append(f"| {label} | {f['runs']['rounds']} | {f['answers']['p50_ms']} | {f['runs']['p50_ms']} | {f['runs']['p95_ms']}"
                    f" | {f['runs']['max_ms']} | {f['ended']['p50_ms']} | {f['outer']['p50_ms']} | {f['outer']['max_ms']} |")
    load = clone_figures["load"]["p50_ms"]
    clone_rows = [
        f"| {CLONES[name][0]} | {f['rounds']} | {f['p50_ms']} | {f['p95_ms']} | {f['max_ms']} | {f['p50_ms'] / load:.4f}× |"
        for name, f in clone_figures.items()
    ]
    page = PAGE.format(
        when=datetime.date.today().isoformat(),
        machine=f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
        engine=command("docker", "version", "-f", "{{.Server.Version}}"),
        load=f"{load:.1f}",
        load_after=f"{os.getloadavg()[1]:.1f}",
        box=options.box_image,
        image=options.image,
        size=round(int(command("docker", "image", "inspect", "-f", "{{.Size}}", options.image)) / 1e6),
        starts="\n".join(rows),
        clones="\n".join(clone_rows),
        id=image_id[:19],
    )
    Path(options.page).parent.mkdir(parents=True, exist_ok=True)
    Path(options.page).write_text(page)
    print(page)
    print(json.dumps({"benchmark": "daemon", "rounds": options.rounds, "start": start_figures, "images": clone_figures}))


if __name__ == "__main__":
    main()
