"""Rounds of one workload on a server that is rewound: work, go, rewind, ask, and now and then compare all that the server tells.

Runs in a unit's container: `python3 workloads.py WORKLOAD ROUNDS ORACLE_EVERY`. The clock, the first question and the oracle are those of the
rebase benchmark (`rounds.py`, put beside it). The last line is `BLOCK` and JSON.
"""

import contextlib
import json
import sys
import time

import rounds

HOSTS = {"db": "db"}
BLOB_BYTES, BLOBS = 4 << 20, 12

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
WORKLOADS = {
    "insert": INSERT,
    "update": UPDATE,
    "ddl": DDL,
    "users": USERS,
    "globals": GLOBALS,
    "mixed": [*INSERT, *UPDATE, *DDL, *USERS, *GLOBALS, f"SELECT 1 INTO OUTFILE '{rounds.LITTER}'"],
    "50MB": [
        "CREATE TABLE shop.bulk (id INT PRIMARY KEY AUTO_INCREMENT, body LONGBLOB)",
        *[f"INSERT INTO shop.bulk (body) VALUES (REPEAT('x', {BLOB_BYTES}))"] * BLOBS,
    ],
}


def work(statements):
    with contextlib.closing(rounds.connect(HOSTS["db"])) as db, db.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def main():
    workload, count, oracle_every = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    right = rounds.Shop.ask(HOSTS)
    rounds.rebase()
    done, asked, wrong = [], 0, []
    for number in range(count):
        work(WORKLOADS[workload])
        start = time.monotonic()
        said = rounds.rebase()
        differs = rounds.Shop.first_answers(HOSTS)
        end = time.monotonic()
        rounds.Shop.first_answers(HOSTS)
        again = time.monotonic() - end
        done.append({"driver": said["driver"], "rewind_ms": said["us"] / 1000, "ms": (end - start) * 1000, "again_ms": again * 1000})
        if number % oracle_every == 0:
            now = rounds.Shop.ask(HOSTS)
            asked += 1
            differs += [name for name in right if now[name] != right[name]]
            # What the oracle itself leaves in the server is no part of the next round.
            rounds.rebase()
        wrong += [f"round {number}: {name}" for name in differs]
    print("BLOCK " + json.dumps({"rounds": done, "asked": asked, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main()
