"""Products, categories and prices."""

import pymysql

from shop import ShopError, db


def add_product(conn, sku, name, category, price_cents):
    if price_cents < 0:
        raise ShopError("a price cannot be negative")
    try:
        return db.insert(
            conn,
            "INSERT INTO products (sku, name, category_id, price_cents) VALUES (%s, %s, %s, %s)",
            sku, name, category, price_cents,
        )
    except pymysql.err.IntegrityError as error:
        raise ShopError(f"cannot add {sku}: {error.args[1]}") from error


def find(conn, sku):
    """(id, name, category, price, active) or None."""
    return db.row(conn, "SELECT id, name, category_id, price_cents, active FROM products WHERE sku = %s", sku)


def set_price(conn, product, cents):
    """Changes a price and notes the change; the note's id, or None where the price was that already."""
    if cents < 0:
        raise ShopError("a price cannot be negative")
    with db.transaction(conn):
        old = db.value(conn, "SELECT price_cents FROM products WHERE id = %s FOR UPDATE", product)
        if old is None:
            raise ShopError(f"no product {product}")
        if old == cents:
            return None
        db.run(conn, "UPDATE products SET price_cents = %s WHERE id = %s", cents, product)
        return db.insert(
            conn, "INSERT INTO price_changes (product_id, old_cents, new_cents) VALUES (%s, %s, %s)", product, old, cents
        )


def raise_category(conn, category, percent):
    """Raises all prices of a category, halves up; how many changed."""
    with db.transaction(conn):
        db.run(
            conn,
            "INSERT INTO price_changes (product_id, old_cents, new_cents)"
            " SELECT id, price_cents, FLOOR((price_cents * (100 + %s) + 50) / 100) FROM products"
            " WHERE category_id = %s ORDER BY id",
            percent, category,
        )
        return db.run(
            conn,
            "UPDATE products SET price_cents = FLOOR((price_cents * (100 + %s) + 50) / 100) WHERE category_id = %s",
            percent, category,
        )


def retire(conn, product):
    """Takes a product off sale and out of all carts; how many carts held it."""
    with db.transaction(conn):
        if not db.run(conn, "UPDATE products SET active = 0 WHERE id = %s AND active = 1", product):
            raise ShopError(f"product {product} is not on sale")
        return db.run(conn, "DELETE FROM cart_items WHERE product_id = %s", product)


def move_category(conn, source, target):
    """Moves all products and drops the empty category; how many moved."""
    if source == target:
        raise ShopError("a category cannot be merged into itself")
    with db.transaction(conn):
        moved = db.run(conn, "UPDATE products SET category_id = %s WHERE category_id = %s", target, source)
        db.run(conn, "DELETE FROM categories WHERE id = %s", source)
    return moved
