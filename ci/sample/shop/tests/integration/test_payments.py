"""Money in and out. Payment ids follow the seeded ones."""

import pytest

from db import model as m
from shop import ShopError, db, payments

NEXT_PAYMENT = m.ORDERS + 1
CARD = "5555 5555 5555 4444"
CAPTURED = [o for o in range(1_000, 2_000) if m.payment_status(o) == "captured"]
AUTHORISED = [o for o in range(1_000, 2_000) if m.payment_status(o) == "authorised"]


def amount(order):
    return sum(m.order_amounts(order))


@pytest.mark.parametrize("method", payments.METHODS)
@pytest.mark.parametrize("order", range(17, m.ORDERS, 5_000))
def test_an_order_is_authorised_in_full(conn, order, method):
    assert payments.authorise(conn, order, method, CARD) == NEXT_PAYMENT
    assert db.row(conn, "SELECT order_id, method, status, amount_cents FROM payments WHERE id = %s", NEXT_PAYMENT) == (
        order, method, "authorised", amount(order))


@pytest.mark.parametrize("number", [
    "", "4", "4111 1111 1111 1112", "4111-1111-1111-1111", "abcd abcd abcd abcd", "0" * 20, "411111111111111１",
    "1234 5678 9012 3456", "5555 5555 5555 4445", "4111 1111 1111 111",
])
def test_a_wrong_card_number_is_refused(conn, number):
    with pytest.raises(ShopError, match="not valid"):
        payments.authorise(conn, 1, "card", number)
    assert db.value(conn, "SELECT MAX(id) FROM payments") == m.ORDERS


@pytest.mark.parametrize("number", ["4111111111111111", "5555 5555 5555 4444", "3782 822463 10005", "6011 1111 1111 1117",
                                    "3056 930902 5904", "4222 2222 2222 2"])
def test_a_right_card_number_is_taken(conn, number):
    assert payments.authorise(conn, 1, "card", number) == NEXT_PAYMENT


@pytest.mark.parametrize("method", ["cash", "", "CARD ", "cheque"])
def test_an_unknown_method_is_refused(conn, method):
    with pytest.raises(ShopError, match="no such method"):
        payments.authorise(conn, 1, method)


@pytest.mark.parametrize("payment", AUTHORISED[:10])
def test_what_is_authorised_is_captured_once(conn, payment):
    payments.capture(conn, payment)
    with pytest.raises(ShopError, match="not authorised"):
        payments.capture(conn, payment)


@pytest.mark.parametrize("payment", AUTHORISED[15:25])
def test_what_is_voided_cannot_be_captured(conn, payment):
    payments.void(conn, payment)
    with pytest.raises(ShopError, match="not authorised"):
        payments.capture(conn, payment)


@pytest.mark.parametrize("payment", CAPTURED[:16])
def test_parts_can_be_refunded_until_nothing_is_left(conn, payment):
    whole = amount(payment)
    assert payments.refund(conn, payment, 100) == whole - 100
    assert payments.refund(conn, payment, whole - 100) == 0
    with pytest.raises(ShopError, match="not captured"):
        payments.refund(conn, payment, 1)


@pytest.mark.parametrize("payment", CAPTURED[24:34])
def test_no_more_is_refunded_than_was_paid(conn, payment):
    with pytest.raises(ShopError, match="only"):
        payments.refund(conn, payment, amount(payment) + 1)
    assert db.value(conn, "SELECT refunded_cents FROM payments WHERE id = %s", payment) == 0


@pytest.mark.parametrize("cents", [0, -1, -10_000])
def test_nothing_cannot_be_refunded(conn, cents):
    with pytest.raises(ShopError, match="nothing"):
        payments.refund(conn, CAPTURED[0], cents)


@pytest.mark.parametrize("order", CAPTURED[40:50])
def test_giving_back_takes_what_is_left(conn, order):
    payments.refund(conn, order, 50)
    with db.transaction(conn):
        assert payments.give_back(conn, order) == amount(order) - 50
        assert payments.give_back(conn, order) == 0
