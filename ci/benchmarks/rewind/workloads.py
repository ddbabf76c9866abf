"""Rounds of one workload on a server that is rewound: work, go, rewind, ask, and now and then compare all that the server tells.

Runs in a unit's container: `python3 workloads.py WORKLOAD ROUNDS ORACLE_EVERY`. The clock, the first question and the oracle are those of the
rebase benchmark (`rounds.py`, put beside it). Where ORACLE_EVERY is 0 the server is one that is restarted: each round warms it as that was which
is rewound, and times the work alone. The last line is `BLOCK` and JSON.
"""

import contextlib
import json
import sys
import time

import rounds

HOSTS = {"db": "db"}
BLOB_BYTES, BLOBS = 4 << 20, 12
# A server writes what its start left dirty until then, in seconds: the moment that is gone back to is taken after that, too.
SETTLED_AFTER = 3

INSERT = [
    "INSERT INTO shop.customers (email, country, segment) VALUES ('one@example.com', 'DE', 'private')",
    "INSERT INTO shop.categories (name, tax_class) VALUES ('one more', 'zero')",
]
UPDATE = [
    "UPDATE shop.products SET price_cents = price_cents + 1 WHERE id <= 100",
    f"DELETE FROM shop.payments WHERE id <= {rounds.DELETED}",
]
DDL = [
    "CREATE TABLE shop.litter (id INT PRIMARY KEY)",
    "INSERT INTO shop.litter VALUES (1), (2)",
    "ALTER TABLE shop.warehouses ADD COLUMN city VARCHAR(40)",
    "DROP TABLE shop.stock_moves",
]
USERS = [
    "CREATE USER litterbug IDENTIFIED BY 'x'",
    "GRANT SELECT, INSERT ON shop.* TO litterbug",
    "ALTER USER root@'%' IDENTIFIED BY ''",
]
GLOBALS = [
    "SET GLOBAL max_connections = 77",
    "SET GLOBAL sql_mode = ''",
    "SET GLOBAL innodb_io_capacity = 321",
]
# The longest comes first: nothing is known of how long they take, and lanes take them in order.
WORKLOADS = {
    "50MB": [
        "CREATE TABLE shop.bulk (id INT PRIMARY KEY AUTO_INCREMENT, body LONGBLOB)",
        *[f"INSERT INTO shop.bulk (body) VALUES (REPEAT('x', {BLOB_BYTES}))"] * BLOBS,
    ],
    "insert": INSERT,
    "update": UPDATE,
    "ddl": DDL,
    "users": USERS,
    "globals": GLOBALS,
    "mixed": [*INSERT, *UPDATE, *DDL, *USERS, *GLOBALS, f"SELECT 1 INTO OUTFILE '{rounds.LITTER}'"],
}


def work(statements):
    """Does a test's work, and says how long it took, in milliseconds."""
    start = time.monotonic()
    with contextlib.closing(rounds.connect(HOSTS["db"])) as db, db.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    return (time.monotonic() - start) * 1000


def rewound(statements, count, oracle_every):
    """Rounds on a server that is rewound: what each took, how often the oracle was asked, and what was wrong."""
    right = rounds.Shop.ask(HOSTS)
    rounds.rebase()
    done, asked, wrong = [], 0, []
    for number in range(count):
        work_ms = work(statements)
        start = time.monotonic()
        said = rounds.rebase()
        differs = rounds.Shop.first_answers(HOSTS)
        end = time.monotonic()
        rounds.Shop.first_answers(HOSTS)
        again_ms = (time.monotonic() - end) * 1000
        times = {"rewind_ms": said["us"] / 1000, "ms": (end - start) * 1000, "again_ms": again_ms, "work_ms": work_ms}
        done.append({"driver": said["driver"], **times})
        if number % oracle_every == 0:
            now = rounds.Shop.ask(HOSTS)
            asked += 1
            differs += [name for name in right if now[name] != right[name]]
            # What the oracle itself leaves in the server is no part of the next round.
            rounds.rebase()
        wrong += [f"round {number}: {name}" for name in differs]
    return {"rounds": done, "asked": asked, "wrong": wrong}


def restarted(statements, count):
    """Rounds on a server whose memory nobody watches, as warm as that which is rewound."""
    done = []
    for _ in range(count):
        said = rounds.rebase()
        rounds.Shop.ask(HOSTS)
        time.sleep(SETTLED_AFTER)
        for _ in range(2):
            rounds.Shop.first_answers(HOSTS)
        done.append({"driver": said["driver"], "work_ms": work(statements)})
    return {"rounds": done}


def main():
    workload, count, oracle_every = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    statements = WORKLOADS[workload]
    block = rewound(statements, count, oracle_every) if oracle_every else restarted(statements, count)
    print("BLOCK " + json.dumps(block), flush=True)


if __name__ == "__main__":
    main()
