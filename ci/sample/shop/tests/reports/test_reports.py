"""Figures over all 40,000 seeded orders, against the same figures worked out from the model. Reads only."""

from collections import Counter, defaultdict

import pytest

from db import model as m
from shop import reports


class Facts:
    """All orders once through, in one pass."""

    def __init__(self):
        self.by_status = Counter()
        self.revenue = Counter()
        self.month = defaultdict(lambda: (0, 0, 0))
        self.sold = defaultdict(lambda: (0, 0))
        self.customer = defaultdict(lambda: (0, 0))
        for order in range(1, m.ORDERS + 1):
            status, customer, lines = m.status(order), m.customer_of(order), m.lines(order)
            net, tax = m.order_amounts(order)
            self.by_status[status] += 1
            if status in ("paid", "shipped"):
                self.revenue[m.country(customer)] += net + tax
            count, nets, taxes = self.month[m.placed_at(order).month]
            self.month[m.placed_at(order).month] = (count + 1, nets + net, taxes + tax)
            count, gross = self.customer[customer]
            self.customer[customer] = (count + 1, gross + net + tax)
            if status != "cancelled":
                for product, _, quantity, unit in lines:
                    pieces, worth = self.sold[m.category_of(product)]
                    self.sold[m.category_of(product)] = (pieces + quantity, worth + quantity * unit)


@pytest.fixture(scope="session")
def facts():
    return Facts()


def test_orders_are_counted_by_status(conn, facts):
    assert reports.orders_by_status(conn) == facts.by_status


@pytest.mark.parametrize("country", m.COUNTRIES)
def test_revenue_of_a_country(conn, facts, country):
    assert reports.revenue_of_country(conn, country) == facts.revenue[country]


@pytest.mark.parametrize("number", range(1, 13))
def test_a_month(conn, facts, number):
    assert reports.month(conn, 2024, number) == facts.month[number]


@pytest.mark.parametrize("year", [2023, 2025])
def test_a_month_without_orders(conn, year):
    assert reports.month(conn, year, 6) == (0, 0, 0)


@pytest.mark.parametrize("category", range(1, m.CATEGORIES + 1))
def test_what_a_category_sold(conn, facts, category):
    assert reports.sold_of_category(conn, category) == facts.sold[category]


@pytest.mark.parametrize("customer", range(1, m.CUSTOMERS + 1, 250))
def test_what_a_customer_bought(conn, facts, customer):
    assert reports.customer(conn, customer) == facts.customer[customer]


@pytest.mark.parametrize("warehouse", range(1, m.WAREHOUSES + 1))
def test_what_a_warehouse_is_worth(conn, warehouse):
    pieces = [m.on_hand(p, warehouse) for p in range(1, m.PRODUCTS + 1)]
    worth = sum(n * m.price(p) for p, n in enumerate(pieces, 1))
    assert reports.shelf_value(conn, warehouse) == (sum(pieces), worth)


@pytest.mark.parametrize("below", [60, 120])
@pytest.mark.parametrize("category", range(1, m.CATEGORIES + 1, 2))
def test_what_is_running_low(conn, category, below):
    free = {p: sum(m.available(p, w) for w in range(1, m.WAREHOUSES + 1))
            for p in range(category, m.PRODUCTS + 1, m.CATEGORIES)}
    expected = sorted(((p, n) for p, n in free.items() if n < below), key=lambda f: (f[1], f[0]))
    assert reports.running_low(conn, category, below) == expected
