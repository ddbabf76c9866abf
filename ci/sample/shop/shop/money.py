"""Tax and discounts, in cents, without floats."""

# Per mille by country: standard, reduced, zero.
RATES = {
    "DE": {"standard": 190, "reduced": 70, "zero": 0},
    "AT": {"standard": 200, "reduced": 100, "zero": 0},
    "FR": {"standard": 200, "reduced": 55, "zero": 0},
    "NL": {"standard": 210, "reduced": 90, "zero": 0},
    "BE": {"standard": 210, "reduced": 60, "zero": 0},
    "ES": {"standard": 210, "reduced": 100, "zero": 0},
    "IT": {"standard": 220, "reduced": 100, "zero": 0},
    "CH": {"standard": 81, "reduced": 26, "zero": 0},
}
# Switzerland has no coins below five Rappen.
ROUND_TO = {"CH": 5}


def tax(net, tax_class, country):
    """The tax on a line; half a step goes up."""
    step = ROUND_TO.get(country, 1)
    divisor = 1000 * step
    return (net * RATES[country][tax_class] + divisor // 2) // divisor * step


def discount(net, kind, value):
    """What a coupon takes off, never more than there is."""
    off = (net * value + 50) // 100 if kind == "percent" else value
    return min(off, net)
