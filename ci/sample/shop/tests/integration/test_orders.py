"""From cart to parcel and back. The next order has the id after the seeded ones, whatever ran before."""

import pytest

from db import model as m
from shop import ShopError, cart, db, orders, stock

NEXT_ORDER = m.ORDERS + 1
CARD = "4111 1111 1111 1111"
SEEDED = {status: [o for o in range(100, 400) if m.status(o) == status] for status in m.STATUSES}


def shelf(product):
    return {w: (m.on_hand(product, w), m.reserved(product, w)) for w in range(1, m.WAREHOUSES + 1)}


def shelf_now(conn, product):
    return {w: stock.level(conn, product, w) for w in range(1, m.WAREHOUSES + 1)}


@pytest.mark.parametrize("number", range(1, m.CARTS, 21))
def test_a_cart_becomes_the_next_order(conn, number):
    country = m.country(m.cart_customer(number))
    amounts = [(q * m.price(p), m.tax_class(m.category_of(p))) for p, q in m.cart_lines(number)]
    assert orders.place(conn, number) == NEXT_ORDER
    assert db.row(conn, "SELECT status, net_cents, tax_cents FROM orders WHERE id = %s", NEXT_ORDER) == (
        "new", sum(a for a, _ in amounts), sum(m.tax(a, c, country) for a, c in amounts))
    assert db.value(conn, "SELECT COUNT(*) FROM carts") == m.CARTS - 1


@pytest.mark.parametrize("number", range(4, m.CARTS, 40))
def test_an_order_reserves_where_most_is_free(conn, number):
    expected = {}
    for product, quantity in m.cart_lines(number):
        best = max(range(1, m.WAREHOUSES + 1), key=lambda w: (m.available(product, w), -w))
        expected[product] = shelf(product)
        on_hand, reserved = expected[product][best]
        expected[product][best] = (on_hand, reserved + quantity)
    orders.place(conn, number)
    assert {product: shelf_now(conn, product) for product in expected} == expected


@pytest.mark.parametrize("number", range(9, m.CARTS, 90))
def test_a_coupon_is_used_up_by_one_order(conn, number):
    orders.place(conn, number, "LAST1")
    assert db.value(conn, "SELECT uses_left FROM coupons WHERE code = 'LAST1'") == 0
    with pytest.raises(ShopError, match="used up"):
        orders.place(conn, number + 1, "LAST1")


@pytest.mark.parametrize("number", range(6, m.CARTS, 90))
def test_an_order_that_cannot_be_filled_leaves_no_trace(conn, number):
    (product, _), _ = m.cart_lines(number)
    db.run(conn, "UPDATE stock SET on_hand = reserved WHERE product_id = %s", product)
    with pytest.raises(ShopError, match="are missing"):
        orders.place(conn, number)
    assert db.value(conn, "SELECT MAX(id) FROM orders") == m.ORDERS
    assert len(cart.lines(conn, number)) == 2


@pytest.mark.parametrize("customer", [1, 77, 5_000, m.CUSTOMERS])
def test_an_empty_cart_is_no_order(conn, customer):
    with pytest.raises(ShopError, match="empty"):
        orders.place(conn, cart.create(conn, customer))


@pytest.mark.parametrize("number", range(8, m.CARTS, 70))
def test_a_parcel_leaves_the_shelf(conn, number):
    order = orders.place(conn, number)
    orders.pay(conn, order, "card", CARD)
    moves = orders.ship(conn, order)
    assert moves == [m.STOCK_MOVES + 1, m.STOCK_MOVES + 2]
    assert orders.status(conn, order) == "shipped"
    for product, quantity in m.cart_lines(number):
        assert sum(h for h, _ in shelf_now(conn, product).values()) == sum(
            h for h, _ in shelf(product).values()) - quantity


@pytest.mark.parametrize("paid", [False, True], ids=["new", "paid"])
@pytest.mark.parametrize("number", range(11, m.CARTS, 90))
def test_a_cancelled_order_gives_all_back(conn, number, paid):
    order = orders.place(conn, number)
    if paid:
        orders.pay(conn, order, "transfer")
    orders.cancel(conn, order)
    for product, _ in m.cart_lines(number):
        assert shelf_now(conn, product) == shelf(product)
    left = db.value(conn, "SELECT SUM(amount_cents - refunded_cents) FROM payments WHERE order_id = %s", order)
    assert left == (0 if paid else None)


@pytest.mark.parametrize("order", SEEDED["shipped"][:14])
def test_returned_goods_are_on_the_shelf_again(conn, order):
    before = {(p, w): m.on_hand(p, w) for p, w, _, _ in m.lines(order)}
    for product, warehouse, quantity, _ in m.lines(order):
        before[product, warehouse] += quantity
    orders.refund(conn, order)
    assert {(p, w): stock.level(conn, p, w)[0] for p, w in before} == before
    assert db.row(conn, "SELECT status, refunded_cents FROM payments WHERE id = %s", order) == (
        "refunded", sum(m.order_amounts(order)))


MOVES = {
    "pay": lambda conn, order: orders.pay(conn, order, "invoice"),
    "ship": orders.ship,
    "cancel": orders.cancel,
    "refund": orders.refund,
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("status", m.STATUSES)
def test_only_the_drawn_moves_are_allowed(conn, status, move):
    order = SEEDED[status][0]
    # Seeded orders hold no reservations of their own: make room for shipping and cancelling them.
    for product, warehouse, quantity, _ in m.lines(order):
        stock.receive(conn, product, warehouse, quantity)
        stock.reserve(conn, product, warehouse, quantity)
    after = orders.MOVES[move].get(status)
    if after is None:
        with pytest.raises(ShopError, match=f"cannot {move}"):
            MOVES[move](conn, order)
    else:
        MOVES[move](conn, order)
    assert orders.status(conn, order) == (after or status)


@pytest.mark.parametrize("order", [0, NEXT_ORDER, 10**9])
def test_an_order_that_is_not_there_is_refused(conn, order):
    with pytest.raises(ShopError, match="no order"):
        orders.ship(conn, order)
