"""Carts and what they would cost."""

from datetime import date

from shop import ShopError, db, money

QUANTITY_MAX = 99


def create(conn, customer):
    return db.insert(conn, "INSERT INTO carts (customer_id) VALUES (%s)", customer)


def put(conn, cart, product, quantity):
    """Adds to what is there; the line's quantity afterwards."""
    if quantity <= 0:
        raise ShopError("a quantity must be positive")
    if not db.value(conn, "SELECT active FROM products WHERE id = %s", product):
        raise ShopError(f"product {product} is not on sale")
    with db.transaction(conn):
        db.run(
            conn,
            "INSERT INTO cart_items (cart_id, product_id, quantity) VALUES (%s, %s, %s)"
            " ON DUPLICATE KEY UPDATE quantity = quantity + VALUES(quantity)",
            cart, product, quantity,
        )
        total = db.value(conn, "SELECT quantity FROM cart_items WHERE cart_id = %s AND product_id = %s", cart, product)
        if total > QUANTITY_MAX:
            raise ShopError(f"at most {QUANTITY_MAX} of one product")
    return total


def remove(conn, cart, product):
    if not db.run(conn, "DELETE FROM cart_items WHERE cart_id = %s AND product_id = %s", cart, product):
        raise ShopError(f"product {product} is not in the cart")


def lines(conn, cart):
    """[(product, quantity, unit price, tax class)] in the order of the products."""
    return db.rows(
        conn,
        "SELECT i.product_id, i.quantity, p.price_cents, c.tax_class FROM cart_items i"
        " JOIN products p ON p.id = i.product_id JOIN categories c ON c.id = p.category_id"
        " WHERE i.cart_id = %s ORDER BY i.product_id",
        cart,
    )


def coupon(conn, code, net):
    """(kind, value) of a coupon that may be used on this net amount today."""
    found = db.row(conn, "SELECT kind, value, min_cents, uses_left, last_day FROM coupons WHERE code = %s", code)
    if found is None:
        raise ShopError(f"there is no coupon {code}")
    kind, value, smallest, uses_left, last_day = found
    if last_day < date.today():
        raise ShopError(f"coupon {code} has expired")
    if uses_left < 1:
        raise ShopError(f"coupon {code} is used up")
    if net < smallest:
        raise ShopError(f"coupon {code} is for {smallest} cents and more")
    return kind, value


def totals(conn, cart, code=None):
    """(net, discount, tax). The discount is spread over the lines, so that each is taxed on what is paid for it."""
    country = db.value(
        conn, "SELECT c.country FROM carts k JOIN customers c ON c.id = k.customer_id WHERE k.id = %s", cart
    )
    if country is None:
        raise ShopError(f"no cart {cart}")
    amounts = [(quantity * unit, tax_class) for _, quantity, unit, tax_class in lines(conn, cart)]
    net = sum(amount for amount, _ in amounts)
    off = money.discount(net, *coupon(conn, code, net)) if code else 0
    tax, left_net, left_off = 0, net, off
    for amount, tax_class in amounts:
        # What is left is shared anew at each line: the parts add up to the whole.
        part = left_off * amount // left_net if left_net else 0
        left_net, left_off = left_net - amount, left_off - part
        tax += money.tax(amount - part, tax_class, country)
    return net, off, tax
