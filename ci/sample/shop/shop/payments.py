"""Money in and out: authorised → captured → (partly) refunded, or voided before it is captured."""

from shop import ShopError, db

METHODS = ("card", "transfer", "invoice")


def card_is_valid(number):
    """Luhn's check digit over 13 to 19 digits; blanks are allowed."""
    number = number.replace(" ", "")
    if not (number.isascii() and number.isdigit() and 13 <= len(number) <= 19):
        return False
    digits = [int(digit) for digit in number]
    doubled = [d if place % 2 == 0 else sum(divmod(2 * d, 10)) for place, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def authorise(conn, order, method, card=None):
    if method not in METHODS:
        raise ShopError(f"no such method: {method}")
    if method == "card" and not card_is_valid(card or ""):
        raise ShopError("the card's number is not valid")
    amount = db.value(conn, "SELECT gross_cents FROM orders WHERE id = %s", order)
    if amount is None:
        raise ShopError(f"no order {order}")
    return db.insert(
        conn, "INSERT INTO payments (order_id, method, status, amount_cents) VALUES (%s, %s, 'authorised', %s)",
        order, method, amount,
    )


def _change(conn, payment, before, after):
    if not db.run(conn, "UPDATE payments SET status = %s WHERE id = %s AND status = %s", after, payment, before):
        raise ShopError(f"payment {payment} is not {before}")


def capture(conn, payment):
    _change(conn, payment, "authorised", "captured")


def void(conn, payment):
    _change(conn, payment, "authorised", "voided")


def refund(conn, payment, cents):
    """Gives part of a captured payment back; what is left of it."""
    if cents <= 0:
        raise ShopError("nothing to refund")
    with db.transaction(conn):
        found = db.row(
            conn, "SELECT status, amount_cents - refunded_cents FROM payments WHERE id = %s FOR UPDATE", payment
        )
        if found is None or found[0] != "captured":
            raise ShopError(f"payment {payment} is not captured")
        left = found[1] - cents
        if left < 0:
            raise ShopError(f"only {found[1]} cents are left of payment {payment}")
        db.run(
            conn, "UPDATE payments SET refunded_cents = refunded_cents + %s, status = %s WHERE id = %s",
            cents, "refunded" if left == 0 else "captured", payment,
        )
        return left


def give_back(conn, order):
    """Refunds all that was captured for an order, in the caller's transaction; how much."""
    left = db.value(
        conn,
        "SELECT SUM(amount_cents - refunded_cents) FROM payments WHERE order_id = %s AND status = 'captured'", order,
    )
    db.run(
        conn,
        "UPDATE payments SET refunded_cents = amount_cents, status = 'refunded'"
        " WHERE order_id = %s AND status = 'captured'", order,
    )
    return int(left or 0)
