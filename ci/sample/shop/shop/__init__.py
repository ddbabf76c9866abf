"""A small shop: catalogue, stock, carts, orders, payments, reports, and the access and upkeep of its database.

Functions take a connection first and run in the caller's transaction; `db.transaction` makes one. Money is in cents.
"""


class ShopError(Exception):
    """The shop refuses; nothing was changed."""
