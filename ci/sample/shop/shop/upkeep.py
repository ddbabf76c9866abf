"""Changes to the database itself: tables, columns, indexes, views, triggers, and the server's settings."""

import re

from shop import ShopError, db


def tables(conn):
    return {name for (name,) in db.rows(
        conn, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop' AND table_type = 'BASE TABLE'"
    )}


def columns(conn, table):
    return [name for (name,) in db.rows(
        conn,
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'shop' AND table_name = %s"
        " ORDER BY ordinal_position", table,
    )]


def indexes(conn, table):
    return {name for (name,) in db.rows(
        conn,
        "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = 'shop' AND table_name = %s",
        table,
    )}


def add_column(conn, table, column, kind):
    if column in columns(conn, table):
        raise ShopError(f"{table} has a column {column} already")
    db.run(conn, f"ALTER TABLE {db.name(table)} ADD COLUMN {db.name(column)} {kind}")


def add_index(conn, table, column):
    name = f"by_{column}_too"
    if name in indexes(conn, table):
        raise ShopError(f"{table} has an index {name} already")
    db.run(conn, f"CREATE INDEX {db.name(name)} ON {db.name(table)} ({db.name(column)})")
    return name


def archive_month(conn, year, month):
    """Moves a month's payments of finished orders to a table of their own; its name and how many moved."""
    table = f"payments_{year}_{month:02d}"
    if table in tables(conn):
        raise ShopError(f"{year}-{month:02d} is archived already")
    first = f"{year}-{month:02d}-01"
    db.run(conn, f"CREATE TABLE {db.name(table)} LIKE payments")
    with db.transaction(conn):
        chosen = (
            "FROM payments WHERE order_id IN (SELECT id FROM orders WHERE placed_at >= %s"
            " AND placed_at < %s + INTERVAL 1 MONTH) AND status IN ('voided', 'refunded')"
        )
        moved = db.run(conn, f"INSERT INTO {db.name(table)} SELECT * {chosen}", first, first)
        db.run(conn, f"DELETE {chosen}", first, first)
    return table, moved


def watch_table(conn, table, action):
    """Notes each insert, update or delete in the audit, by a trigger; the trigger's name."""
    if action not in ("insert", "update", "delete"):
        raise ShopError(f"cannot watch for {action}")
    name = f"watch_{table}_{action}"
    db.run(
        conn,
        f"CREATE TRIGGER {db.name(name)} AFTER {action.upper()} ON {db.name(table)} FOR EACH ROW"
        f" INSERT INTO audit (actor, action) VALUES (CURRENT_USER(), '{action} {table}')",
    )
    return name


def next_id(conn, table):
    """The id that the next row would get. Only the definition tells it as it is: statistics lag behind."""
    definition = db.row(conn, f"SHOW CREATE TABLE {db.name(table)}")[1]
    counter = re.search(r"AUTO_INCREMENT=(\d+)", definition)
    return int(counter[1]) if counter else 1


def setting(conn, name):
    found = db.row(conn, "SHOW GLOBAL VARIABLES LIKE %s", name)
    if found is None or found[0].lower() != name.lower():
        raise ShopError(f"no such setting: {name}")
    return found[1]


def change_setting(conn, name, to):
    setting(conn, name)
    db.run(conn, f"SET GLOBAL {name} = %s", to)


def freeze(conn):
    """Nobody but administrators may write."""
    change_setting(conn, "read_only", 1)


def thaw(conn):
    change_setting(conn, "read_only", 0)
