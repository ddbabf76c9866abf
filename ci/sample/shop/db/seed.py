"""Fills an empty server with the shop of `db.model`: 200,000 rows, always the same ones.

`python3 -m db.seed`, once per baseline. Rows go in as text in large statements: that is most of what makes it quick.
"""

import os
from pathlib import Path

import pymysql

from db import model

ROWS_PER_STATEMENT = 2_000


def insert(cursor, table, columns, rows):
    """`rows` are tuples of numbers and of texts that need no escaping."""
    head = f"INSERT INTO {table} ({columns}) VALUES "
    batch = []
    for row in rows:
        batch.append(str(row))
        if len(batch) == ROWS_PER_STATEMENT:
            cursor.execute(head + ",".join(batch))
            batch.clear()
    if batch:
        cursor.execute(head + ",".join(batch))


def statements(text):
    return [s for s in (part.strip() for part in text.split(";\n")) if s]


def fill(cursor):
    m = model
    insert(cursor, "categories", "id, name, tax_class",
           ((c, f"category {c:02d}", m.tax_class(c)) for c in range(1, m.CATEGORIES + 1)))
    insert(cursor, "products", "id, sku, name, category_id, price_cents, active",
           ((p, m.sku(p), f"product {p}", m.category_of(p), m.price(p), int(m.active(p)))
            for p in range(1, m.PRODUCTS + 1)))
    insert(cursor, "warehouses", "id, code", ((w, f"WH{w}") for w in range(1, m.WAREHOUSES + 1)))
    insert(cursor, "stock", "product_id, warehouse_id, on_hand, reserved",
           ((p, w, m.on_hand(p, w), m.reserved(p, w))
            for p in range(1, m.PRODUCTS + 1) for w in range(1, m.WAREHOUSES + 1)))
    insert(cursor, "stock_moves", "id, product_id, warehouse_id, delta, reason",
           ((p, p, 1, m.on_hand(p, 1), "opening") for p in range(1, m.PRODUCTS + 1)))
    insert(cursor, "customers", "id, email, country, segment",
           ((c, f"customer{c}@example.org", m.country(c), m.segment(c)) for c in range(1, m.CUSTOMERS + 1)))
    insert(cursor, "coupons", "code, kind, value, min_cents, uses_left, last_day",
           ((code, *rest) for code, rest in m.COUPONS.items()))
    insert(cursor, "carts", "id, customer_id", ((c, m.cart_customer(c)) for c in range(1, m.CARTS + 1)))
    insert(cursor, "cart_items", "cart_id, product_id, quantity",
           ((c, p, q) for c in range(1, m.CARTS + 1) for p, q in m.cart_lines(c)))
    insert(cursor, "orders", "id, customer_id, status, placed_at, net_cents, tax_cents",
           ((o, m.customer_of(o), m.status(o), f"{m.placed_at(o):%Y-%m-%d %H:%M:%S}", *m.order_amounts(o))
            for o in range(1, m.ORDERS + 1)))
    insert(cursor, "order_items", "order_id, line_no, product_id, warehouse_id, quantity, unit_cents",
           ((o, number, *line) for o in range(1, m.ORDERS + 1) for number, line in enumerate(m.lines(o), 1)))
    insert(cursor, "payments", "id, order_id, method, status, amount_cents, refunded_cents",
           ((o, o, m.method(o), m.payment_status(o), sum(m.order_amounts(o)),
             sum(m.order_amounts(o)) if m.status(o) == "refunded" else 0) for o in range(1, m.ORDERS + 1)))


def main():
    connection = pymysql.connect(host=os.environ.get("SHOP_DB_HOST", "db"), user="root", autocommit=True)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop CHARACTER SET utf8mb4")
        cursor.execute("USE shop")
        for statement in statements((Path(__file__).parent / "schema.sql").read_text()):
            cursor.execute(statement)
        # The rows are right by construction, and in the order of their keys.
        cursor.execute("SET SESSION foreign_key_checks = 0")
        cursor.execute("SET SESSION unique_checks = 0")
        cursor.execute("START TRANSACTION")
        fill(cursor)
        cursor.execute("COMMIT")
        # Statistics are part of the baseline too: plans must not depend on when they are gathered.
        cursor.execute("ANALYZE TABLE products, stock, customers, orders, order_items, payments")
        cursor.execute(
            "SELECT (SELECT COUNT(*) FROM products) + (SELECT COUNT(*) FROM stock) + (SELECT COUNT(*) FROM stock_moves)"
            " + (SELECT COUNT(*) FROM customers) + (SELECT COUNT(*) FROM orders) + (SELECT COUNT(*) FROM order_items)"
            " + (SELECT COUNT(*) FROM payments) + (SELECT COUNT(*) FROM cart_items) + (SELECT COUNT(*) FROM carts)")
        print(f"seeded {cursor.fetchone()[0]:,} rows")


if __name__ == "__main__":
    main()
