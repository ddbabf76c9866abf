"""Figures for people. Reads only."""

from shop import db


def orders_by_status(conn):
    return dict(db.rows(conn, "SELECT status, COUNT(*) FROM orders GROUP BY status"))


def revenue_of_country(conn, country):
    """Gross of what was paid for and kept, in cents."""
    return int(db.value(
        conn,
        "SELECT COALESCE(SUM(o.gross_cents), 0) FROM orders o JOIN customers c ON c.id = o.customer_id"
        " WHERE c.country = %s AND o.status IN ('paid', 'shipped')", country,
    ))


def month(conn, year, number):
    """(orders, net, tax) placed in a month."""
    first = f"{year}-{number:02d}-01"
    found = db.row(
        conn,
        "SELECT COUNT(*), COALESCE(SUM(net_cents), 0), COALESCE(SUM(tax_cents), 0) FROM orders"
        " WHERE placed_at >= %s AND placed_at < %s + INTERVAL 1 MONTH", first, first,
    )
    return tuple(int(n) for n in found)


def sold_of_category(conn, category):
    """(pieces, net) over all orders that were not cancelled."""
    found = db.row(
        conn,
        "SELECT COALESCE(SUM(i.quantity), 0), COALESCE(SUM(i.quantity * i.unit_cents), 0) FROM products p"
        " JOIN order_items i ON i.product_id = p.id JOIN orders o ON o.id = i.order_id"
        " WHERE p.category_id = %s AND o.status <> 'cancelled'", category,
    )
    return tuple(int(n) for n in found)


def customer(conn, number):
    """(orders, gross) of a customer."""
    found = db.row(
        conn, "SELECT COUNT(*), COALESCE(SUM(gross_cents), 0) FROM orders WHERE customer_id = %s", number
    )
    return tuple(int(n) for n in found)


def shelf_value(conn, warehouse):
    """Pieces on hand and their worth at today's prices."""
    found = db.row(
        conn,
        "SELECT SUM(s.on_hand), SUM(s.on_hand * p.price_cents) FROM stock s JOIN products p ON p.id = s.product_id"
        " WHERE s.warehouse_id = %s", warehouse,
    )
    return tuple(int(n) for n in found)


def running_low(conn, category, below):
    """Products of a category with fewer free pieces than that, the scarcest first."""
    return [(product, int(free)) for product, free in db.rows(
        conn,
        "SELECT s.product_id, SUM(s.on_hand - s.reserved) AS free FROM stock s JOIN products p ON p.id = s.product_id"
        " WHERE p.category_id = %s GROUP BY s.product_id HAVING free < %s ORDER BY free, s.product_id",
        category, below,
    )]
