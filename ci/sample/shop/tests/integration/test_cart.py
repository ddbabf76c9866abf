"""Carts: what is in them and what it would cost in each country with each coupon."""

import pytest

from db import model as m
from shop import ShopError, cart, db

NEXT_CART = m.CARTS + 1
# A customer of each country, and a product of each tax class that is on sale.
CUSTOMER_OF = {m.country(c): c for c in range(1, 9)}
PRODUCT_OF = {m.tax_class(m.category_of(p)): p for p in range(201, 206)}
GOOD_COUPONS = ["WELCOME5", "TEN", "QUARTER", "FIVER", "TWENTY", "LAST1", "FREEBIE"]


def filled(conn, country, product, quantity):
    number = cart.create(conn, CUSTOMER_OF[country])
    cart.put(conn, number, product, quantity)
    return number


@pytest.mark.parametrize("customer", range(1, m.CUSTOMERS, 1_500))
def test_a_new_cart_is_empty_and_numbered_on(conn, customer):
    assert cart.create(conn, customer) == NEXT_CART
    assert cart.lines(conn, NEXT_CART) == []
    assert cart.totals(conn, NEXT_CART) == (0, 0, 0)


@pytest.mark.parametrize("tax_class", m.TAX_CLASSES)
@pytest.mark.parametrize("country", m.COUNTRIES)
@pytest.mark.parametrize("quantity", [1, 7])
def test_tax_follows_country_and_class(conn, country, tax_class, quantity):
    product = PRODUCT_OF[tax_class]
    net = quantity * m.price(product)
    number = filled(conn, country, product, quantity)
    assert cart.totals(conn, number) == (net, 0, m.tax(net, tax_class, country))


@pytest.mark.parametrize("code", GOOD_COUPONS)
@pytest.mark.parametrize("country", m.COUNTRIES)
def test_a_coupon_is_taken_off_before_tax(conn, country, code):
    product = PRODUCT_OF["standard"]
    net = 20 * m.price(product)
    kind, value, *_ = m.COUPONS[code]
    off = min(net, (net * value + 50) // 100 if kind == "percent" else value)
    number = filled(conn, country, product, 20)
    assert cart.totals(conn, number, code) == (net, off, m.tax(net - off, "standard", country))


@pytest.mark.parametrize("code, why", [
    ("EXPIRED", "expired"), ("USEDUP", "used up"), ("BIGSPEND", "and more"), ("NOSUCH", "no coupon"), ("", None),
])
@pytest.mark.parametrize("country", ["DE", "CH"])
def test_a_coupon_that_does_not_hold_says_why(conn, code, why, country):
    number = filled(conn, country, PRODUCT_OF["reduced"], 1)
    if why is None:
        assert cart.totals(conn, number, code)[1] == 0
    else:
        with pytest.raises(ShopError, match=why):
            cart.totals(conn, number, code)


@pytest.mark.parametrize("number", range(5, m.CARTS, 80))
def test_a_discount_is_spread_without_loss(conn, number):
    net, off, tax = cart.totals(conn, number, "WELCOME5")
    assert net == sum(q * m.price(p) for p, q in m.cart_lines(number))
    assert off == (net * 5 + 50) // 100
    full = cart.totals(conn, number)[2]
    # Five percent less tax, give or take the rounding of two lines.
    assert abs(tax - full * 95 / 100) <= 12


@pytest.mark.parametrize("number", range(1, m.CARTS, 90))
def test_a_product_put_twice_is_one_line(conn, number):
    (product, quantity), _ = m.cart_lines(number)
    assert cart.put(conn, number, product, 2) == quantity + 2
    assert cart.put(conn, number, product, 3) == quantity + 5
    assert len(cart.lines(conn, number)) == 2


@pytest.mark.parametrize("number", range(3, m.CARTS, 120))
def test_no_line_grows_beyond_the_limit(conn, number):
    product, quantity = m.cart_lines(number)[1]
    with pytest.raises(ShopError, match="at most"):
        cart.put(conn, number, product, cart.QUANTITY_MAX + 1 - quantity)
    assert dict((p, q) for p, q, _, _ in cart.lines(conn, number))[product] == quantity


@pytest.mark.parametrize("product, quantity", [(50, 1), (5_000, 1), (0, 1), (1, 0), (1, -3), (99_999, 1)])
def test_what_cannot_be_sold_cannot_be_put(conn, product, quantity):
    with pytest.raises(ShopError):
        cart.put(conn, 1, product, quantity)
    assert db.value(conn, "SELECT COUNT(*) FROM cart_items") == 2 * m.CARTS


@pytest.mark.parametrize("number", range(2, m.CARTS, 120))
def test_a_removed_line_is_gone(conn, number):
    first, second = m.cart_lines(number)
    cart.remove(conn, number, first[0])
    assert [line[:2] for line in cart.lines(conn, number)] == [second]
    with pytest.raises(ShopError, match="not in the cart"):
        cart.remove(conn, number, first[0])
