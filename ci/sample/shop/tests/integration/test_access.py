"""Accounts and grants of the server. Each account is made anew: it must not be there from another test."""

import pymysql
import pytest

from shop import ShopError, access, db

PASSWORD = "correct horse"
TABLES = ("products", "stock", "carts", "orders", "payments")
STATEMENTS = {
    "SELECT": "SELECT COUNT(*) FROM {}",
    "INSERT": "INSERT INTO {} ({}) SELECT {} FROM {} WHERE 1 = 0",
    "UPDATE": "UPDATE {} SET {} = {} WHERE 1 = 0",
    "DELETE": "DELETE FROM {} WHERE 1 = 0",
}
KEY = {"stock": "on_hand"}
# All columns that must be given, and none that the server works out.
COLUMNS = {
    "products": "sku, name, category_id, price_cents",
    "stock": "product_id, warehouse_id, on_hand",
    "carts": "customer_id",
    "orders": "customer_id, status, placed_at, net_cents, tax_cents",
    "payments": "order_id, method, status, amount_cents",
}
# Inserting from a table, and updating with a condition, also reads it.
ALSO = {"INSERT": {"SELECT"}, "UPDATE": {"SELECT"}, "DELETE": set(), "SELECT": set()}


def statement(verb, table):
    key, columns = KEY.get(table, "id"), COLUMNS[table]
    return STATEMENTS[verb].format(*((table, columns, columns, table) if verb == "INSERT" else (table, key, key)))


@pytest.mark.parametrize("verb", STATEMENTS)
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("role", access.ROLES)
def test_a_role_may_do_what_is_written_and_nothing_else(conn, role, table, verb):
    access.create(conn, "worker", PASSWORD, role)
    allowed = {verb} | ALSO[verb] <= set(access.ROLES[role].get(table, ()))
    with db.connect("worker", PASSWORD, secure=True) as theirs:
        if allowed:
            db.run(theirs, statement(verb, table))
        else:
            with pytest.raises(pymysql.err.OperationalError, match="denied"):
                db.run(theirs, statement(verb, table))


@pytest.mark.parametrize("role", access.ROLES)
def test_the_server_lists_the_grants_of_a_role(conn, role):
    assert access.users(conn) == ["root"]
    access.create(conn, "worker", PASSWORD, role)
    assert access.users(conn) == ["root", "worker"]
    assert access.grants(conn, "worker") == {table: set(verbs) for table, verbs in access.ROLES[role].items()}


@pytest.mark.parametrize("user", ["anna", "bert", "o'hara", "zoë", "with space", "x" * 32])
def test_an_account_can_be_made_once_and_dropped_once(conn, user):
    access.create(conn, user, PASSWORD, "reader")
    with pytest.raises(ShopError, match="cannot create"):
        access.create(conn, user, PASSWORD, "reader")
    access.drop(conn, user)
    with pytest.raises(ShopError, match="cannot drop"):
        access.drop(conn, user)
    assert access.users(conn) == ["root"]


@pytest.mark.parametrize("password", ["", "wrong", "correct horse ", "CORRECT HORSE"])
def test_a_wrong_password_is_refused(conn, password):
    access.create(conn, "worker", PASSWORD, "reader")
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        db.connect("worker", password, secure=True)


@pytest.mark.parametrize("role", access.ROLES)
def test_a_locked_account_cannot_come_in(conn, role):
    access.create(conn, "worker", PASSWORD, role)
    access.lock(conn, "worker")
    with pytest.raises(pymysql.err.OperationalError, match="locked"):
        db.connect("worker", PASSWORD, secure=True)


@pytest.mark.parametrize("role", ["boss", "", "READER"])
def test_an_unknown_role_makes_no_account(conn, role):
    with pytest.raises(ShopError, match="no such role"):
        access.create(conn, "worker", PASSWORD, role)
    assert access.users(conn) == ["root"]


@pytest.mark.parametrize("what", ["CREATE TABLE mine (a INT)", "DROP TABLE audit", "CREATE USER other", "SET GLOBAL max_connections = 1",
                                  "ALTER TABLE carts ADD COLUMN x INT", "TRUNCATE TABLE carts"])
@pytest.mark.parametrize("role", access.ROLES)
def test_no_role_may_change_the_server(conn, role, what):
    access.create(conn, "worker", PASSWORD, role)
    with db.connect("worker", PASSWORD, secure=True) as theirs:
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            db.run(theirs, what)
