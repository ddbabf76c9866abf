"""What lies where. `reserved` is promised to orders and still on the shelf."""

from shop import ShopError, db


def level(conn, product, warehouse):
    """(on hand, reserved)"""
    found = db.row(
        conn, "SELECT on_hand, reserved FROM stock WHERE product_id = %s AND warehouse_id = %s", product, warehouse
    )
    if found is None:
        raise ShopError(f"product {product} is not kept in warehouse {warehouse}")
    return found


def available(conn, product):
    return int(db.value(conn, "SELECT SUM(on_hand - reserved) FROM stock WHERE product_id = %s", product) or 0)


def _move(conn, product, warehouse, delta, reason):
    return db.insert(
        conn,
        "INSERT INTO stock_moves (product_id, warehouse_id, delta, reason) VALUES (%s, %s, %s, %s)",
        product, warehouse, delta, reason,
    )


def receive(conn, product, warehouse, quantity):
    """Goods come in; the move's id."""
    if quantity <= 0:
        raise ShopError("nothing to receive")
    with db.transaction(conn):
        level(conn, product, warehouse)
        db.run(
            conn, "UPDATE stock SET on_hand = on_hand + %s WHERE product_id = %s AND warehouse_id = %s",
            quantity, product, warehouse,
        )
        return _move(conn, product, warehouse, quantity, "receive")


def reserve(conn, product, warehouse, quantity):
    """Promises goods to an order, in the caller's transaction."""
    changed = db.run(
        conn,
        "UPDATE stock SET reserved = reserved + %s"
        " WHERE product_id = %s AND warehouse_id = %s AND on_hand - reserved >= %s",
        quantity, product, warehouse, quantity,
    )
    if not changed:
        raise ShopError(f"not enough of product {product} in warehouse {warehouse}")


def release(conn, product, warehouse, quantity):
    """Takes a promise back."""
    changed = db.run(
        conn,
        "UPDATE stock SET reserved = reserved - %s WHERE product_id = %s AND warehouse_id = %s AND reserved >= %s",
        quantity, product, warehouse, quantity,
    )
    if not changed:
        raise ShopError(f"not that much of product {product} is reserved in warehouse {warehouse}")


def ship(conn, product, warehouse, quantity):
    """Reserved goods leave; the move's id."""
    release(conn, product, warehouse, quantity)
    db.run(
        conn, "UPDATE stock SET on_hand = on_hand - %s WHERE product_id = %s AND warehouse_id = %s",
        quantity, product, warehouse,
    )
    return _move(conn, product, warehouse, -quantity, "ship")


def transfer(conn, product, source, target, quantity):
    """Moves goods that nobody has been promised; the ids of both moves."""
    if source == target or quantity <= 0:
        raise ShopError("nothing to transfer")
    with db.transaction(conn):
        reserve(conn, product, source, quantity)
        release(conn, product, source, quantity)
        db.run(
            conn, "UPDATE stock SET on_hand = on_hand - %s WHERE product_id = %s AND warehouse_id = %s",
            quantity, product, source,
        )
        db.run(
            conn, "UPDATE stock SET on_hand = on_hand + %s WHERE product_id = %s AND warehouse_id = %s",
            quantity, product, target,
        )
        return (
            _move(conn, product, source, -quantity, "transfer"),
            _move(conn, product, target, quantity, "transfer"),
        )


def allocate(conn, product, quantity):
    """Reserves from the fullest warehouse first: [(warehouse, quantity)]. In the caller's transaction."""
    left, parts = quantity, []
    shelves = db.rows(
        conn,
        "SELECT warehouse_id, on_hand - reserved AS free FROM stock WHERE product_id = %s AND on_hand > reserved"
        " ORDER BY free DESC, warehouse_id FOR UPDATE",
        product,
    )
    for warehouse, free in shelves:
        take = min(left, free)
        reserve(conn, product, warehouse, take)
        parts.append((warehouse, take))
        left -= take
        if left == 0:
            return parts
    raise ShopError(f"product {product}: {left} of {quantity} are missing")


def count(conn, product, warehouse, counted):
    """Stocktaking: sets what is on hand, and notes the difference; the move's id or None where it was right."""
    with db.transaction(conn):
        on_hand, reserved = level(conn, product, warehouse)
        if counted < reserved:
            raise ShopError(f"{reserved} of product {product} are promised, only {counted} are there")
        if counted == on_hand:
            return None
        db.run(
            conn, "UPDATE stock SET on_hand = %s WHERE product_id = %s AND warehouse_id = %s", counted, product, warehouse
        )
        return _move(conn, product, warehouse, counted - on_hand, "count")
