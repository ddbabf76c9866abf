"""One connection as root; every test of `integration` may expect the shop exactly as seeded."""

import pytest

from shop import db


@pytest.fixture
def conn():
    with db.connect() as connection:
        yield connection
