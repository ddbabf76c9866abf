"""From cart to parcel.

    new ── pay ──> paid ── ship ──> shipped
     │              │                  │
     └─ cancel ─────┴──> cancelled     └─ refund ──> refunded
"""

from shop import ShopError, cart, db, payments, stock

MOVES = {
    "pay": {"new": "paid"},
    "ship": {"paid": "shipped"},
    "cancel": {"new": "cancelled", "paid": "cancelled"},
    "refund": {"shipped": "refunded"},
}


def place(conn, cart_id, code=None):
    """Turns a cart into an order with reserved stock; the order's id. The cart is gone afterwards."""
    with db.transaction(conn):
        lines = cart.lines(conn, cart_id)
        if not lines:
            raise ShopError("the cart is empty")
        net, off, tax = cart.totals(conn, cart_id, code)
        order = db.insert(
            conn,
            "INSERT INTO orders (customer_id, status, placed_at, net_cents, discount_cents, tax_cents, coupon)"
            " SELECT customer_id, 'new', NOW(), %s, %s, %s, %s FROM carts WHERE id = %s",
            net, off, tax, code, cart_id,
        )
        number = 0
        for product, quantity, unit, _ in lines:
            for warehouse, part in stock.allocate(conn, product, quantity):
                number += 1
                db.run(
                    conn, "INSERT INTO order_items VALUES (%s, %s, %s, %s, %s, %s)",
                    order, number, product, warehouse, part, unit,
                )
        if code:
            db.run(conn, "UPDATE coupons SET uses_left = uses_left - 1 WHERE code = %s", code)
        db.run(conn, "DELETE FROM carts WHERE id = %s", cart_id)
    return order


def status(conn, order):
    found = db.value(conn, "SELECT status FROM orders WHERE id = %s", order)
    if found is None:
        raise ShopError(f"no order {order}")
    return found


def items(conn, order):
    """[(product, warehouse, quantity, unit price)]"""
    return db.rows(
        conn,
        "SELECT product_id, warehouse_id, quantity, unit_cents FROM order_items WHERE order_id = %s ORDER BY line_no",
        order,
    )


def _advance(conn, order, move):
    before = status(conn, order)
    after = MOVES[move].get(before)
    if after is None:
        raise ShopError(f"cannot {move} an order that is {before}")
    db.run(conn, "UPDATE orders SET status = %s WHERE id = %s", after, order)
    return before


def pay(conn, order, method, card=None):
    """Authorises and captures the whole amount; the payment's id."""
    with db.transaction(conn):
        _advance(conn, order, "pay")
        payment = payments.authorise(conn, order, method, card)
        payments.capture(conn, payment)
        return payment


def ship(conn, order):
    """The goods leave; the ids of the stock moves."""
    with db.transaction(conn):
        _advance(conn, order, "ship")
        return [stock.ship(conn, product, warehouse, quantity) for product, warehouse, quantity, _ in items(conn, order)]


def cancel(conn, order):
    """Gives stock and money back."""
    with db.transaction(conn):
        before = _advance(conn, order, "cancel")
        for product, warehouse, quantity, _ in items(conn, order):
            stock.release(conn, product, warehouse, quantity)
        if before == "paid":
            payments.give_back(conn, order)


def refund(conn, order):
    """The goods come back to the shelf, the money to the customer."""
    with db.transaction(conn):
        _advance(conn, order, "refund")
        for product, warehouse, quantity, _ in items(conn, order):
            db.run(
                conn, "UPDATE stock SET on_hand = on_hand + %s WHERE product_id = %s AND warehouse_id = %s",
                quantity, product, warehouse,
            )
        payments.give_back(conn, order)
