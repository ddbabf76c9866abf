"""Changes to tables and to the server's own settings: what no transaction undoes."""

import pymysql
import pytest

from db import model as m
from shop import ShopError, db, upkeep

TABLES = {
    "categories": m.CATEGORIES, "products": m.PRODUCTS, "price_changes": 0, "warehouses": m.WAREHOUSES,
    "stock": m.PRODUCTS * m.WAREHOUSES, "stock_moves": m.STOCK_MOVES, "customers": m.CUSTOMERS, "coupons": len(m.COUPONS),
    "carts": m.CARTS, "cart_items": 2 * m.CARTS, "orders": m.ORDERS, "order_items": m.LINES_PER_ORDER * m.ORDERS,
    "payments": m.ORDERS, "audit": 0,
}
# Nothing refers to these.
LEAVES = ("price_changes", "stock", "stock_moves", "coupons", "cart_items", "order_items", "payments", "audit")
COUNTED = {"categories": m.CATEGORIES, "products": m.PRODUCTS, "price_changes": 0, "stock_moves": m.STOCK_MOVES,
           "customers": m.CUSTOMERS, "carts": m.CARTS, "orders": m.ORDERS, "payments": m.ORDERS, "audit": 0}
WATCHED = [t for t in TABLES if t not in ("audit", "orders", "order_items", "categories", "warehouses")]


@pytest.mark.parametrize("kind", ["INT NULL", "VARCHAR(40) NOT NULL DEFAULT 'none'"], ids=["number", "text"])
@pytest.mark.parametrize("table", [t for t in TABLES if t not in ("orders", "order_items")])
def test_a_column_is_added_once(conn, table, kind):
    before = upkeep.columns(conn, table)
    upkeep.add_column(conn, table, "note", kind)
    assert upkeep.columns(conn, table) == [*before, "note"]
    with pytest.raises(ShopError, match="already"):
        upkeep.add_column(conn, table, "note", kind)


@pytest.mark.parametrize("table, column", [("products", "price_cents"), ("customers", "segment"), ("customers", "country"),
                                           ("stock_moves", "reason"), ("coupons", "kind"), ("carts", "id"), ("audit", "actor"),
                                           ("categories", "tax_class"), ("warehouses", "id"), ("price_changes", "new_cents")])
def test_an_index_is_added_once(conn, table, column):
    name = upkeep.add_index(conn, table, column)
    assert name in upkeep.indexes(conn, table)
    with pytest.raises(ShopError, match="already"):
        upkeep.add_index(conn, table, column)


@pytest.mark.parametrize("table", LEAVES)
def test_a_dropped_table_is_gone(conn, table):
    assert upkeep.tables(conn) == set(TABLES)
    db.run(conn, f"DROP TABLE {table}")
    assert upkeep.tables(conn) == set(TABLES) - {table}


@pytest.mark.parametrize("table", LEAVES)
def test_a_truncated_table_counts_from_one_again(conn, table):
    assert db.value(conn, f"SELECT COUNT(*) FROM {table}") == TABLES[table]
    db.run(conn, f"TRUNCATE TABLE {table}")
    assert db.value(conn, f"SELECT COUNT(*) FROM {table}") == 0
    if table in COUNTED:
        assert upkeep.next_id(conn, table) == 1


@pytest.mark.parametrize("table", TABLES)
def test_a_renamed_table_keeps_its_rows(conn, table):
    db.run(conn, f"RENAME TABLE {table} TO {table}_old")
    assert db.value(conn, f"SELECT COUNT(*) FROM {table}_old") == TABLES[table]
    with pytest.raises(pymysql.err.ProgrammingError, match="exist"):
        db.run(conn, f"SELECT 1 FROM {table}")


@pytest.mark.parametrize("table, last", COUNTED.items())
def test_the_counter_can_be_moved_on(conn, table, last):
    assert upkeep.next_id(conn, table) == last + 1
    db.run(conn, f"ALTER TABLE {table} AUTO_INCREMENT = 900000")
    assert upkeep.next_id(conn, table) == 900_000


@pytest.mark.parametrize("month", range(1, 13))
def test_a_month_is_archived_once(conn, month):
    chosen = [o for o in range(1, m.ORDERS + 1)
              if m.payment_status(o) in ("voided", "refunded") and m.placed_at(o).timetuple()[:2] == (2024, month)]
    table, moved = upkeep.archive_month(conn, 2024, month)
    assert (table, moved) == (f"payments_2024_{month:02d}", len(chosen))
    assert db.value(conn, "SELECT COUNT(*) FROM payments") == m.ORDERS - moved
    with pytest.raises(ShopError, match="archived already"):
        upkeep.archive_month(conn, 2024, month)


@pytest.mark.parametrize("action", ["insert", "update", "delete"])
@pytest.mark.parametrize("table", WATCHED)
def test_a_watched_table_tells_the_audit(conn, table, action):
    upkeep.watch_table(conn, table, action)
    db.run(conn, "SET SESSION foreign_key_checks = 0")
    column = upkeep.columns(conn, table)[0]
    if action == "delete":
        db.run(conn, f"DELETE FROM {table} LIMIT 1")
    elif action == "update":
        db.run(conn, f"UPDATE {table} SET {column} = {column}")
    elif table in ("price_changes",):
        db.run(conn, "INSERT INTO price_changes (product_id, old_cents, new_cents) VALUES (1, 1, 2)")
    else:
        names = ", ".join(upkeep.columns(conn, table)[1:])
        key = {"coupons": "'COPY'", "stock": "0", "cart_items": "0"}.get(table, "NULL")
        unique = {"products": ("sku", "'COPY'"), "customers": ("email", "'copy'")}.get(table)
        values = names.replace(*unique, 1) if unique else names
        db.run(conn, f"INSERT INTO {table} ({column}, {names}) SELECT {key}, {values} FROM {table} LIMIT 1")
    expected = TABLES[table] if action == "update" else 0 if table == "price_changes" and action == "delete" else 1
    assert db.value(conn, "SELECT COUNT(*) FROM audit WHERE action = %s", f"{action} {table}") == expected
    assert db.value(conn, "SELECT COUNT(*) FROM audit") == expected


@pytest.mark.parametrize("country", m.COUNTRIES)
def test_a_view_shows_one_country(conn, country):
    name = f"customers_{country.lower()}"
    db.run(conn, f"CREATE VIEW {name} AS SELECT * FROM customers WHERE country = '{country}'")
    assert db.value(conn, f"SELECT COUNT(*) FROM {name}") == m.CUSTOMERS // len(m.COUNTRIES)


# name: (as the server starts, as the test sets it, as it then reads)
SETTINGS = {
    "read_only": ("OFF", 1, "ON"),
    "max_connections": ("60", 77, "77"),
    "wait_timeout": ("28800", 120, "120"),
    "interactive_timeout": ("28800", 121, "121"),
    "sort_buffer_size": (None, 1048576, "1048576"),
    "join_buffer_size": ("262144", 524288, "524288"),
    "long_query_time": ("10.000000", 2, "2.000000"),
    "max_allowed_packet": (None, 33554432, "33554432"),
    "max_connect_errors": ("100", 7, "7"),
    "updatable_views_with_limit": ("YES", "NO", "NO"),
    "net_read_timeout": ("30", 31, "31"),
    "net_write_timeout": ("60", 61, "61"),
    "lock_wait_timeout": (None, 5, "5"),
    "innodb_lock_wait_timeout": ("50", 3, "3"),
    "innodb_stats_auto_recalc": ("ON", 0, "OFF"),
    "local_infile": (None, None, None),
    "tmp_table_size": ("16777216", 33554432, "33554432"),
    "max_heap_table_size": ("16777216", 33554432, "33554432"),
    "group_concat_max_len": (None, 2048, "2048"),
    "auto_increment_increment": ("1", 5, "5"),
    "auto_increment_offset": ("1", 3, "3"),
    "default_week_format": ("0", 1, "1"),
    "div_precision_increment": ("4", 6, "6"),
    "time_zone": ("SYSTEM", "+05:30", "+05:30"),
    "sql_mode": (None, "ANSI_QUOTES", "ANSI_QUOTES"),
    "slow_query_log": ("OFF", 1, "ON"),
    "general_log": ("OFF", 1, "ON"),
    "table_open_cache": (None, 300, "300"),
    "thread_cache_size": (None, 3, "3"),
    "transaction_isolation": ("REPEATABLE-READ", "SERIALIZABLE", "SERIALIZABLE"),
    "character_set_server": ("utf8mb4", "latin1", "latin1"),
    "init_connect": ("", "SET @a = 1", "SET @a = 1"),
    "event_scheduler": (None, None, None),
    "max_prepared_stmt_count": ("16382", 10, "10"),
    "max_error_count": (None, 7, "7"),
    "innodb_flush_log_at_trx_commit": ("0", 2, "2"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_starts_at_its_default_and_can_be_changed(conn, name):
    default, to, reads = SETTINGS[name]
    now = upkeep.setting(conn, name)
    if default is not None:
        assert now == default
    if to is None:
        # A switch whose default differs between servers: turn it over.
        to, reads = (0, "OFF") if now == "ON" else (1, "ON")
    assert now != reads
    upkeep.change_setting(conn, name, to)
    assert upkeep.setting(conn, name) == reads


@pytest.mark.parametrize("name", ["no_such_thing", "", "max_connections; DROP TABLE audit"])
def test_an_unknown_setting_is_refused(conn, name):
    with pytest.raises(ShopError, match="no such setting"):
        upkeep.change_setting(conn, name, 1)


@pytest.mark.parametrize("table", ["audit", "stock_moves", "price_changes"])
def test_a_frozen_shop_takes_no_writes_from_accounts(conn, table):
    db.run(conn, "CREATE USER clerk@'%%' IDENTIFIED BY 'secret'")
    db.run(conn, f"GRANT SELECT, DELETE ON shop.{table} TO clerk@'%%'")
    upkeep.freeze(conn)
    with db.connect("clerk", "secret", secure=True) as theirs:
        with pytest.raises(pymysql.err.OperationalError, match="read-only"):
            db.run(theirs, f"DELETE FROM {table}")
        upkeep.thaw(conn)
        db.run(theirs, f"DELETE FROM {table}")
