"""Products come and go, prices change. Ids are those that follow the seed."""

import pytest

from db import model as m
from shop import ShopError, catalogue, db

NEXT_PRODUCT = m.PRODUCTS + 1


@pytest.mark.parametrize("category", range(1, m.CATEGORIES + 1))
def test_a_new_product_gets_the_next_id(conn, category):
    sku = f"NEW-{category}"
    assert catalogue.add_product(conn, sku, "new", category, 100 * category) == NEXT_PRODUCT
    assert catalogue.find(conn, sku) == (NEXT_PRODUCT, "new", category, 100 * category, 1)
    assert db.value(conn, "SELECT COUNT(*) FROM products") == m.PRODUCTS + 1


@pytest.mark.parametrize("product", range(1, m.PRODUCTS, 500))
def test_a_sku_is_given_once(conn, product):
    with pytest.raises(ShopError, match="Duplicate"):
        catalogue.add_product(conn, m.sku(product), "again", 1, 1)
    assert db.value(conn, "SELECT COUNT(*) FROM products") == m.PRODUCTS


@pytest.mark.parametrize("category", [0, -1, m.CATEGORIES + 1, 1_000])
def test_a_product_needs_a_category(conn, category):
    with pytest.raises(ShopError, match="foreign key"):
        catalogue.add_product(conn, "NEW", "new", category, 1)


@pytest.mark.parametrize("product", range(7, m.PRODUCTS, 250))
def test_a_price_change_is_noted(conn, product):
    old = m.price(product)
    assert catalogue.set_price(conn, product, old + 50) == 1
    assert db.rows(conn, "SELECT * FROM price_changes") == [(1, product, old, old + 50)]
    assert db.value(conn, "SELECT price_cents FROM products WHERE id = %s", product) == old + 50


@pytest.mark.parametrize("product", [1, 50, 2_500, m.PRODUCTS])
def test_the_same_price_is_no_change(conn, product):
    assert catalogue.set_price(conn, product, m.price(product)) is None
    assert db.value(conn, "SELECT COUNT(*) FROM price_changes") == 0


@pytest.mark.parametrize("product, cents", [(1, -1), (m.PRODUCTS + 1, 5), (0, 5), (1, -100_000)])
def test_a_wrong_price_changes_nothing(conn, product, cents):
    with pytest.raises(ShopError):
        catalogue.set_price(conn, product, cents)
    assert db.value(conn, "SELECT COUNT(*) FROM price_changes") == 0


@pytest.mark.parametrize("percent", [3, 10])
@pytest.mark.parametrize("category", range(2, m.CATEGORIES + 1, 3))
def test_a_category_gets_dearer_as_a_whole(conn, category, percent):
    members = [p for p in range(1, m.PRODUCTS + 1) if m.category_of(p) == category]
    raised = {p: (m.price(p) * (100 + percent) + 50) // 100 for p in members}
    assert catalogue.raise_category(conn, category, percent) == len(members)
    assert dict(db.rows(conn, "SELECT id, price_cents FROM products WHERE category_id = %s", category)) == raised
    assert db.value(conn, "SELECT COUNT(*) FROM price_changes") == len(members)


@pytest.mark.parametrize("cart", range(1, m.CARTS + 1, 60))
def test_a_retired_product_leaves_all_carts(conn, cart):
    product = m.cart_lines(cart)[0][0]
    holding = db.value(conn, "SELECT COUNT(*) FROM cart_items WHERE product_id = %s", product)
    assert catalogue.retire(conn, product) == holding >= 1
    assert catalogue.find(conn, m.sku(product))[4] == 0
    assert db.value(conn, "SELECT COUNT(*) FROM cart_items") == 2 * m.CARTS - holding


@pytest.mark.parametrize("product", range(50, m.PRODUCTS + 1, 500))
def test_a_product_off_sale_cannot_be_retired(conn, product):
    with pytest.raises(ShopError, match="not on sale"):
        catalogue.retire(conn, product)


@pytest.mark.parametrize("source", range(1, m.CATEGORIES, 3))
def test_a_merged_category_is_gone(conn, source):
    each = m.PRODUCTS // m.CATEGORIES
    assert catalogue.move_category(conn, source, source + 1) == each
    assert db.value(conn, "SELECT COUNT(*) FROM categories") == m.CATEGORIES - 1
    assert db.value(conn, "SELECT COUNT(*) FROM products WHERE category_id = %s", source + 1) == 2 * each
