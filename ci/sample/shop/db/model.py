"""What the seeded shop holds, as formulas: row number in, row out.

The seed writes these rows and the tests expect them. It knows nothing of the `shop` package: tax is worked out here a
second time, so that a mistake there does not move the expectation along with it.
"""

from datetime import datetime, timedelta
from fractions import Fraction

CATEGORIES = 40
PRODUCTS = 5_000
WAREHOUSES = 4
CUSTOMERS = 15_000
ORDERS = 40_000
LINES_PER_ORDER = 2
CARTS = 1_000
STOCK_MOVES = PRODUCTS

COUNTRIES = ("DE", "AT", "FR", "NL", "BE", "ES", "IT", "CH")
TAX_CLASSES = ("standard", "reduced", "zero")
# Percent by country, in the order of TAX_CLASSES.
TAX_PERCENT = {
    "DE": ("19", "7", "0"),
    "AT": ("20", "10", "0"),
    "FR": ("20", "5.5", "0"),
    "NL": ("21", "9", "0"),
    "BE": ("21", "6", "0"),
    "ES": ("21", "10", "0"),
    "IT": ("22", "10", "0"),
    "CH": ("8.1", "2.6", "0"),
}
SEGMENTS = ("private", "business", "staff")
STATUSES = ("new", "paid", "shipped", "cancelled", "refunded")
# Of ten orders: one new, one paid, six shipped, one cancelled, one refunded.
_STATUS_OF_TEN = ("new", "paid", "shipped", "shipped", "shipped", "shipped", "shipped", "shipped", "cancelled", "refunded")
_PAYMENT_OF_STATUS = {
    "new": "authorised",
    "paid": "captured",
    "shipped": "captured",
    "cancelled": "voided",
    "refunded": "refunded",
}
METHODS = ("card", "transfer", "invoice")
FIRST_ORDER = datetime(2024, 1, 1)
MINUTES_BETWEEN_ORDERS = 13

# code: (kind, value, smallest net in cents, uses left, last day)
COUPONS = {
    "WELCOME5": ("percent", 5, 0, 1000, "2099-12-31"),
    "TEN": ("percent", 10, 5_000, 1000, "2099-12-31"),
    "QUARTER": ("percent", 25, 20_000, 10, "2099-12-31"),
    "FIVER": ("fixed", 500, 2_500, 1000, "2099-12-31"),
    "TWENTY": ("fixed", 2_000, 10_000, 1000, "2099-12-31"),
    "LAST1": ("percent", 50, 0, 1, "2099-12-31"),
    "USEDUP": ("percent", 50, 0, 0, "2099-12-31"),
    "EXPIRED": ("percent", 30, 0, 100, "2020-01-31"),
    "BIGSPEND": ("fixed", 10_000, 100_000, 100, "2099-12-31"),
    "FREEBIE": ("fixed", 1_000_000, 0, 100, "2099-12-31"),
}


def mix(number, salt):
    """A number that looks random and is always the same."""
    return ((number * 2_654_435_761 + salt * 97_003_337) & 0xFFFFFFFF) >> 7


def category_of(product):
    return 1 + (product - 1) % CATEGORIES


def tax_class(category):
    """Of five categories three are taxed in full, one is reduced, one is free."""
    return TAX_CLASSES[(0, 0, 1, 0, 2)[category % 5]]


def price(product):
    return 199 + mix(product, 1) % 19_800


def sku(product):
    return f"SKU-{product:05d}"


def active(product):
    return product % 50 != 0


def on_hand(product, warehouse):
    return 5 + mix(product * WAREHOUSES + warehouse, 2) % 95


def reserved(product, warehouse):
    return mix(product * WAREHOUSES + warehouse, 3) % 4


def available(product, warehouse):
    return on_hand(product, warehouse) - reserved(product, warehouse)


def country(customer):
    return COUNTRIES[customer % len(COUNTRIES)]


def segment(customer):
    return SEGMENTS[mix(customer, 4) % len(SEGMENTS)]


def customer_of(order):
    return 1 + mix(order, 5) % CUSTOMERS


def status(order):
    return _STATUS_OF_TEN[mix(order, 6) % 10]


def placed_at(order):
    return FIRST_ORDER + timedelta(minutes=MINUTES_BETWEEN_ORDERS * (order - 1))


def lines(order):
    """(product, warehouse, quantity, unit price) of each line."""
    out = []
    for line in range(1, LINES_PER_ORDER + 1):
        number = order * LINES_PER_ORDER + line
        product = 1 + mix(number, 7) % PRODUCTS
        out.append((product, 1 + mix(number, 8) % WAREHOUSES, 1 + mix(number, 9) % 4, price(product)))
    return out


def tax(net, tax_class_name, country_name):
    """Half a cent goes up; Switzerland rounds to five."""
    percent = Fraction(TAX_PERCENT[country_name][TAX_CLASSES.index(tax_class_name)])
    step = 5 if country_name == "CH" else 1
    return int(net * percent / 100 / step + Fraction(1, 2)) * step


_PER_MILLE = {c: [int(Fraction(p) * 10) for p in percents] for c, percents in TAX_PERCENT.items()}


def quick_tax(net, tax_class_name, country_name):
    """`tax` without fractions, for the seed's 80,000 lines."""
    rate = _PER_MILLE[country_name][TAX_CLASSES.index(tax_class_name)]
    if country_name == "CH":
        return (net * rate + 2_500) // 5_000 * 5
    return (net * rate + 500) // 1_000


def order_amounts(order):
    """(net, tax) in cents."""
    where = country(customer_of(order))
    net = taxes = 0
    for product, _, quantity, unit in lines(order):
        net += quantity * unit
        taxes += quick_tax(quantity * unit, tax_class(category_of(product)), where)
    return net, taxes


def payment_status(order):
    return _PAYMENT_OF_STATUS[status(order)]


def method(order):
    return METHODS[mix(order, 10) % len(METHODS)]


def cart_lines(cart):
    """(product, quantity) of a seeded cart: always active products."""
    first = 1 + mix(cart, 11) % (PRODUCTS - 60)
    first += 0 if active(first) else 1
    second = first + 7
    second += 0 if active(second) else 1
    return [(first, 1 + mix(cart, 12) % 3), (second, 1 + mix(cart, 13) % 3)]


def cart_customer(cart):
    return 1 + (cart * 7) % CUSTOMERS
