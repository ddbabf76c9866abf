"""What one would do without Andon, on the machine's own engine: each way is an object with `reset`."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.parse
from pathlib import Path

import rounds

PREFIX = "andon-bench"


def docker(*arguments, **options):
    try:
        return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, **options).stdout.strip()
    except subprocess.CalledProcessError as error:
        error.add_note(f"{error.stdout}{error.stderr}")
        raise


def address(container):
    return docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)


def remove(*containers):
    subprocess.run(["docker", "rm", "-f", "-v", *containers], capture_output=True, check=False)


def memory_mib(*containers):
    """What docker says that they hold now."""
    units = {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024, "B": 1 / 1024 / 1024}
    sum_mib = 0.0
    for line in docker("stats", "--no-stream", "--format", "{{.MemUsage}}", *containers).splitlines():
        used = line.split("/")[0].strip()
        unit = next(unit for unit in ("KiB", "MiB", "GiB", "B") if used.endswith(unit))
        sum_mib += float(used.removesuffix(unit)) * units[unit]
    return sum_mib


class ColdStart:
    """The server alone, in a container that is there already: from its start to its greeting."""

    stack, name, label = rounds.Shop, "cold", "the server's own cold start, nothing else"
    WATCH = (
        "use IO::Socket::INET; $| = 1; print qq(started\\n); my $p = fork;"
        "if (!$p) { open STDERR, '>', '/dev/null'; exec @ARGV or die }"
        "while (1) { my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1:3306');"
        " if ($s) { my $b; last if sysread($s, $b, 5) } select(undef, undef, undef, 0.002) }"
        "print qq(up\\n); kill 9, $p; waitpid $p, 0"
    )

    def __init__(self, image, command):
        self.image, self.command, self.container = image, command, f"{PREFIX}-cold"

    def round(self, _):
        remove(self.container)
        docker("run", "-d", "--name", self.container, "--entrypoint", "sleep", self.image, "600")
        began = rounds.busy_s()
        words = ["docker", "exec", self.container, "perl", "-e", self.WATCH, *self.command]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watch:
            assert watch.stdout.readline() == "started\n"
            start = time.monotonic()
            assert watch.stdout.readline() == "up\n"
            took = (time.monotonic() - start) * 1000
        return {"ms": took, "cpu_ms": (rounds.busy_s() - began) * 1000, "wrong": []}

    def containers(self):
        return []

    def close(self):
        remove(self.container)


class RunOfImages:
    """docker rm -f, docker run of images in which the data was committed. `services`: image and command by name."""

    label = "`docker rm` + `run` of committed images"

    def __init__(self, stack, services):
        self.stack, self.name, self.services = stack, f"{stack.name}:rm+run", services
        self.hosts = self.reset()

    def containers(self):
        return [f"{PREFIX}-run-{self.stack.name}-{name}" for name in self.services]

    def reset(self):
        remove(*self.containers())
        for container, (image, command) in zip(self.containers(), self.services.values()):
            docker("run", "-d", "--name", container, "--entrypoint", command[0], image, *command[1:])
        return dict(zip(self.services, map(address, self.containers())))

    def close(self):
        remove(*self.containers())


class Testcontainers:
    """The library from PyPI, on the same committed images."""

    label = "Testcontainers for Python, committed images"

    def __init__(self, stack, services):
        os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
        from testcontainers.core.container import DockerContainer

        self.stack, self.name, self.services = stack, f"{stack.name}:testcontainers", services
        self.make = lambda image, command: DockerContainer(image, entrypoint=command[0]).with_command(command[1:])
        self.running = []
        self.hosts = self.reset()

    def reset(self):
        self.close()
        self.running = [self.make(*service).start() for service in self.services.values()]
        return dict(zip(self.services, map(address, self.containers())))

    def containers(self):
        return [one.get_wrapped_container().id for one in self.running]

    def close(self):
        for one in self.running:
            one.stop()
        self.running = []


class Compose:
    """docker-compose down -v, up -d."""

    def __init__(self, stack, services, folder):
        version = subprocess.run(["docker-compose", "version", "--short"], capture_output=True, text=True, check=True)
        self.label = f"`docker-compose down` + `up` ({version.stdout.strip()}), committed images"
        self.stack, self.name, self.project = stack, f"{stack.name}:compose", f"{PREFIX}-compose-{stack.name}"
        self.services, self.folder = services, Path(folder) / stack.name
        self.folder.mkdir(parents=True, exist_ok=True)
        described = {
            name: {"image": image, "entrypoint": command[:1], "command": command[1:]}
            for name, (image, command) in services.items()
        }
        # JSON is YAML.
        (self.folder / "docker-compose.yml").write_text(json.dumps({"version": "3", "services": described}))
        self.hosts = self.reset()

    def call(self, *words):
        subprocess.run(["docker-compose", "-p", self.project, *words], cwd=self.folder, check=True, capture_output=True)

    def reset(self):
        self.call("down", "-v")
        self.call("up", "-d")
        by_name = f"label=com.docker.compose.project={self.project}"
        return {
            name: address(docker("ps", "-q", "--filter", by_name, "--filter", f"label=com.docker.compose.service={name}"))
            for name in self.services
        }

    def containers(self):
        return docker("ps", "-q", "--filter", f"label=com.docker.compose.project={self.project}").split()

    def close(self):
        self.call("down", "-v")


class KillAndCopy:
    """The data in a folder of the machine: kill, copy the folder anew, start the same container."""

    stack, name, label = rounds.Shop, "kill+copy", "kill, copy the data folder, start (files elsewhere undone by name)"

    def __init__(self, image, command, seeded, folder):
        self.seeded, self.data = Path(folder) / "seeded", Path(folder) / "data"
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder).mkdir(parents=True)
        docker("cp", f"{seeded}:/seeded", str(self.seeded))
        subprocess.run(["cp", "-a", self.seeded, self.data], check=True)
        uid = docker("run", "--rm", "--entrypoint", "id", image, "-u", "mysql")
        for path in (self.seeded, self.data):
            subprocess.run(["chown", "-R", f"{uid}:{uid}", path], check=True)
        self.container = f"{PREFIX}-copyof"
        docker("run", "-d", "--name", self.container, "-v", f"{self.data}:/seeded", "--entrypoint", command[0], image, *command[1:])
        self.hosts = {"db": address(self.container)}

    def reset(self):
        docker("kill", self.container)
        shutil.rmtree(self.data)
        self.data.mkdir()
        subprocess.run(["cp", "-a", f"{self.seeded}/.", str(self.data)], check=True)
        shutil.copystat(self.seeded, self.data)
        owner = self.seeded.stat()
        os.chown(self.data, owner.st_uid, owner.st_gid)
        # The container's mount is of the folder that was removed: starting it again mounts the new one.
        docker("start", self.container)
        docker("exec", self.container, "rm", "-f", rounds.LITTER)
        return {"db": address(self.container)}

    def containers(self):
        return [self.container]

    def close(self):
        remove(self.container)
        shutil.rmtree(self.data.parent, ignore_errors=True)


class OnAServer:
    """Ways that keep the server."""

    stack = rounds.Shop

    def __init__(self, container):
        self.container, self.hosts = container, {"db": address(container)}

    def sql(self, *statements):
        with contextlib.closing(rounds.connect(self.hosts["db"])) as db, db.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def undo_the_rest(self):
        """What none of these ways undoes by itself; a real suite would not know the names."""
        self.sql("DROP USER litterbug", "SET GLOBAL max_connections = 60")
        docker("exec", self.container, "rm", "-f", rounds.LITTER)

    def containers(self):
        return [self.container]

    def close(self):
        pass


class Dump(OnAServer):
    name, label = "dump", "a dump loaded again (users, globals and files undone by name)"

    def __init__(self, container, client):
        super().__init__(container)
        self.client = client
        docker("exec", container, "sh", "-c", f"{client}dump -uroot --add-drop-database --databases shop > /tmp/shop.sql")

    def reset(self):
        docker("exec", self.container, "sh", "-c", f"{self.client} -uroot < /tmp/shop.sql")
        self.undo_the_rest()


class Truncate(OnAServer):
    name, label = "truncate", "truncate all tables, insert from a copy (users, globals and files undone by name)"

    def __init__(self, container):
        super().__init__(container)
        with contextlib.closing(rounds.connect(self.hosts["db"])) as db, db.cursor() as cursor:
            self.tables = [name for name, in rounds.all_of(cursor, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop'")]
            self.autos = dict(rounds.all_of(cursor, "SELECT table_name, auto_increment FROM information_schema.tables"
                                                    " WHERE table_schema = 'shop' AND auto_increment IS NOT NULL"))
            columns = rounds.all_of(cursor, "SELECT table_name, GROUP_CONCAT(column_name ORDER BY ordinal_position) FROM information_schema.columns"
                                            " WHERE table_schema = 'shop' AND extra NOT LIKE '%GENERATED' GROUP BY table_name")
            self.columns = dict(columns)
        copies = [f"CREATE TABLE spare.{name} AS SELECT {self.columns[name]} FROM shop.{name}" for name in self.tables]
        self.sql("CREATE DATABASE spare", *copies)

    def reset(self):
        fill = [f"TRUNCATE shop.{name}" for name in self.tables]
        fill += [f"INSERT INTO shop.{name} ({self.columns[name]}) SELECT * FROM spare.{name}" for name in self.tables]
        fill += [f"ALTER TABLE shop.{name} AUTO_INCREMENT = {value}" for name, value in self.autos.items()]
        self.sql("SET foreign_key_checks = 0", "DROP TABLE shop.litter", *fill)
        self.undo_the_rest()


class Rollback(OnAServer):
    """An unsound lower bound: what the test writes is never committed, and it may write nothing but rows."""

    name, label = "rollback", "a transaction rolled back (unsound: rows alone, and no commit to be tested)"

    def spoil(self, hosts, _):
        self.db = rounds.connect(hosts["db"])
        self.db.begin()
        with self.db.cursor() as cursor:
            cursor.execute("UPDATE shop.products SET price_cents = price_cents + 1 WHERE id <= 100")
            cursor.execute("DELETE FROM shop.payments WHERE id <= 50")

    def reset(self):
        self.db.rollback()
        self.db.close()


class Template:
    """Another engine with as many rows: PostgreSQL copies a database as files."""

    stack, name, label = rounds.Shop, "template", "PostgreSQL: `DROP`, `CREATE DATABASE … TEMPLATE` (as many rows; one database, nothing global)"

    def __init__(self, url):
        import pg8000.native

        parts = urllib.parse.urlparse(url)
        self.connect = lambda database: pg8000.native.Connection(
            parts.username, host=parts.hostname, port=parts.port, password=parts.password, database=database)
        with contextlib.closing(self.connect("postgres")) as admin:
            for name in ("bench_work", "bench_seed"):
                admin.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            admin.run("CREATE DATABASE bench_seed")
        with contextlib.closing(self.connect("bench_seed")) as seed:
            seed.run("CREATE TABLE payments AS SELECT n AS id, n % 97 AS method, repeat('x', 400) AS note"
                     " FROM generate_series(1, 200000) n")
            seed.run("ALTER TABLE payments ADD PRIMARY KEY (id)")
        self.reset()

    def reset(self):
        with contextlib.closing(self.connect("postgres")) as admin:
            admin.run("DROP DATABASE IF EXISTS bench_work WITH (FORCE)")
            admin.run("CREATE DATABASE bench_work TEMPLATE bench_seed")

    def round(self, _):
        began = rounds.busy_s()
        with contextlib.closing(self.connect("bench_work")) as db:
            db.run("UPDATE payments SET method = method + 1 WHERE id <= 100")
            db.run(f"DELETE FROM payments WHERE id <= {rounds.DELETED}")
            db.run("CREATE TABLE litter (id INT)")
        start = time.monotonic()
        self.reset()
        with contextlib.closing(self.connect("bench_work")) as db:
            (back,), = db.run(f"SELECT COUNT(*) FROM payments WHERE id <= {rounds.DELETED}")
            took, worked = time.monotonic() - start, rounds.busy_s() - began
            (count,), = db.run("SELECT COUNT(*) FROM payments")
            (method,), = db.run("SELECT SUM(method) FROM payments WHERE id <= 100")
            (litter,), = db.run("SELECT COUNT(*) FROM pg_class WHERE relname = 'litter'")
        right = (rounds.DELETED, 200000, sum(n % 97 for n in range(1, 101)), 0)
        wrong = [] if (back, count, method, litter) == right else ["contents"]
        return {"ms": took * 1000, "cpu_ms": worked * 1000, "wrong": wrong}

    def containers(self):
        return []

    def close(self):
        with contextlib.closing(self.connect("postgres")) as admin:
            for name in ("bench_work", "bench_seed"):
                admin.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def committed(image, seed, name, into):
    """A server is run, `seed(host)` fills it, and its data become part of the image `into`: answers with the command that starts
    it there. The containers NAME-seed (stopped) and NAME-copy (its data as files) are left."""
    first, copy = f"{name}-seed", f"{name}-copy"
    remove(first, copy)
    docker("run", "-d", "--name", first, image)
    host = address(first)
    rounds.when_up(host).close()
    seed(host)
    words = docker("exec", first, "cat", "/proc/1/cmdline").rstrip("\0").split("\0")
    docker("stop", first)
    # The image declares a VOLUME: a plain commit would hold no data.
    docker("run", "--name", copy, "--volumes-from", first, "--entrypoint", "cp", image, "-a", "/var/lib/mysql", "/seeded")
    docker("commit", copy, into)
    return first, copy, [word.replace("--datadir=/var/lib/mysql", "--datadir=/seeded") for word in words]


def seeded(image, shop):
    """A container with the seeded shop, one with its data as files, and the committed image with the command that starts it."""

    def seed(host):
        environment = {**os.environ, "SHOP_DB_HOST": host}
        subprocess.run([os.sys.executable, "-m", "db.seed"], cwd=shop, env=environment, check=True)

    first, copy, command = committed(image, seed, PREFIX, f"{PREFIX}:seeded")
    docker("start", first)
    rounds.when_up(address(first)).close()
    return first, copy, (f"{PREFIX}:seeded", command)


# As `quick` has them for Andon's lanes, so that all ways have the same servers.
QUICK_POSTGRES = ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
QUICK_REDIS = ["--save", "31536000 1000000000", "--appendonly", "no", "--rdbcompression", "no", "--rdbchecksum", "no"]


def seeded_three(db, fixture):
    """The committed images of a seeded PostgreSQL and Redis beside the shop's, with their commands."""
    import three

    commands = {
        "pg": ["start", "postgres", *QUICK_POSTGRES],
        # Not in the volume that the image declares.
        "cache": ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/var/lib/redis", *QUICK_REDIS],
    }
    hosts = {}
    for name, folder in (("pg", "postgres"), ("cache", "redis")):
        # It stays, as a cache of the next time.
        base = f"{PREFIX}-base:{name}"
        docker("build", "-q", "-t", base, str(Path(fixture) / folder))
        entry, *words = commands[name]
        docker("run", "-d", "--name", f"{PREFIX}-{name}", "--entrypoint", entry, base, *words)
        hosts[name] = address(f"{PREFIX}-{name}")
    three.seed(hosts)
    services = {"db": db}
    for name, command in commands.items():
        docker("stop", f"{PREFIX}-{name}")
        docker("commit", f"{PREFIX}-{name}", f"{PREFIX}:{name}-seeded")
        remove(f"{PREFIX}-{name}")
        services[name] = (f"{PREFIX}:{name}-seeded", command)
    return services


def clean():
    for command in (["ps", "-aq"], ["network", "ls", "-q"]):
        ids = docker(*command, "--filter", f"name={PREFIX}").split()
        if ids and command[0] == "ps":
            remove(*ids)
        elif ids:
            subprocess.run(["docker", "network", "rm", *ids], capture_output=True, check=False)
    images = docker("images", "-q", PREFIX).split()
    if images:
        subprocess.run(["docker", "rmi", "-f", *images], capture_output=True, check=False)
