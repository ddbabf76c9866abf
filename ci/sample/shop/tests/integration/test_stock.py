"""Goods come in, are promised, move and leave. Levels are the seeded ones; move ids follow the seeded moves."""

import pytest

from db import model as m
from shop import ShopError, db, stock

NEXT_MOVE = m.STOCK_MOVES + 1
SHELVES = [(p, w) for p in range(11, m.PRODUCTS, 711) for w in range(1, m.WAREHOUSES + 1)]


@pytest.mark.parametrize("product, warehouse", SHELVES)
def test_goods_received_are_on_hand(conn, product, warehouse):
    assert stock.receive(conn, product, warehouse, 30) == NEXT_MOVE
    assert stock.level(conn, product, warehouse) == (m.on_hand(product, warehouse) + 30, m.reserved(product, warehouse))


@pytest.mark.parametrize("product, warehouse", SHELVES)
def test_all_that_is_free_can_be_promised_and_no_more(conn, product, warehouse):
    free = m.available(product, warehouse)
    stock.reserve(conn, product, warehouse, free)
    assert stock.level(conn, product, warehouse) == (m.on_hand(product, warehouse),) * 2
    with pytest.raises(ShopError, match="not enough"):
        stock.reserve(conn, product, warehouse, 1)


@pytest.mark.parametrize("product, warehouse", [s for s in SHELVES if m.reserved(*s) > 0])
def test_a_promise_can_be_taken_back_once(conn, product, warehouse):
    stock.release(conn, product, warehouse, m.reserved(product, warehouse))
    assert stock.level(conn, product, warehouse) == (m.on_hand(product, warehouse), 0)
    with pytest.raises(ShopError, match="not that much"):
        stock.release(conn, product, warehouse, 1)


@pytest.mark.parametrize("product, warehouse", [s for s in SHELVES if m.reserved(*s) > 0])
def test_shipped_goods_are_gone(conn, product, warehouse):
    on_hand, reserved = m.on_hand(product, warehouse), m.reserved(product, warehouse)
    assert stock.ship(conn, product, warehouse, reserved) == NEXT_MOVE
    assert stock.level(conn, product, warehouse) == (on_hand - reserved, 0)


@pytest.mark.parametrize("product, source", SHELVES)
def test_a_transfer_keeps_the_sum(conn, product, source):
    target = source % m.WAREHOUSES + 1
    quantity = m.available(product, source)
    assert stock.transfer(conn, product, source, target, quantity) == (NEXT_MOVE, NEXT_MOVE + 1)
    assert stock.level(conn, product, source) == (m.reserved(product, source),) * 2
    assert stock.level(conn, product, target)[0] == m.on_hand(product, target) + quantity
    assert stock.available(conn, product) == sum(m.available(product, w) for w in range(1, m.WAREHOUSES + 1))


@pytest.mark.parametrize("product, source", SHELVES[::4])
def test_promised_goods_are_not_transferred(conn, product, source):
    with pytest.raises(ShopError, match="not enough"):
        stock.transfer(conn, product, source, source % m.WAREHOUSES + 1, m.available(product, source) + 1)
    assert stock.level(conn, product, source) == (m.on_hand(product, source), m.reserved(product, source))
    assert db.value(conn, "SELECT COUNT(*) FROM stock_moves") == m.STOCK_MOVES


@pytest.mark.parametrize("product", range(20, m.PRODUCTS, 249))
def test_a_large_order_is_taken_from_the_fullest_warehouses_first(conn, product):
    free = sorted(((m.available(product, w), w) for w in range(1, m.WAREHOUSES + 1)), key=lambda f: (-f[0], f[1]))
    wanted = free[0][0] + 1
    assert stock.allocate(conn, product, wanted) == [(free[0][1], free[0][0]), (free[1][1], 1)]


@pytest.mark.parametrize("product", range(20, m.PRODUCTS, 499))
def test_more_than_there_is_cannot_be_allocated(conn, product):
    everything = sum(m.available(product, w) for w in range(1, m.WAREHOUSES + 1))
    with pytest.raises(ShopError, match="1 of"), db.transaction(conn):
        stock.allocate(conn, product, everything + 1)
    assert stock.available(conn, product) == everything


@pytest.mark.parametrize("product, warehouse", SHELVES[::3])
@pytest.mark.parametrize("difference", [-1, 5])
def test_stocktaking_notes_the_difference(conn, product, warehouse, difference):
    counted = m.on_hand(product, warehouse) + difference
    assert stock.count(conn, product, warehouse, counted) == NEXT_MOVE
    assert stock.level(conn, product, warehouse)[0] == counted
    assert db.row(conn, "SELECT delta, reason FROM stock_moves WHERE id = %s", NEXT_MOVE) == (difference, "count")


@pytest.mark.parametrize("product, warehouse", SHELVES[::5])
def test_a_right_count_moves_nothing(conn, product, warehouse):
    assert stock.count(conn, product, warehouse, m.on_hand(product, warehouse)) is None
    assert db.value(conn, "SELECT MAX(id) FROM stock_moves") == m.STOCK_MOVES


@pytest.mark.parametrize("product, warehouse", [(0, 1), (1, 0), (1, m.WAREHOUSES + 1), (m.PRODUCTS + 1, 1)])
def test_an_unknown_shelf_is_refused(conn, product, warehouse):
    with pytest.raises(ShopError, match="not kept"):
        stock.receive(conn, product, warehouse, 1)
