"""Accounts of the database server: who may do what to which table."""

import pymysql

from shop import ShopError, db

READ, WRITE = ("SELECT",), ("SELECT", "INSERT", "UPDATE")
# What each role may do, by table; nothing else.
ROLES = {
    "reader": {"products": READ, "categories": READ, "stock": READ},
    "clerk": {"products": READ, "stock": READ, "customers": READ, "carts": WRITE, "orders": WRITE},
    "stocker": {"products": READ, "warehouses": READ, "stock": WRITE, "stock_moves": ("SELECT", "INSERT")},
    "cashier": {"orders": READ, "payments": WRITE},
    "auditor": {"orders": READ, "payments": READ, "stock_moves": READ, "audit": ("SELECT", "INSERT")},
    "cleaner": {"carts": ("SELECT", "DELETE"), "cart_items": ("SELECT", "DELETE")},
}


def create(conn, user, password, role):
    if role not in ROLES:
        raise ShopError(f"no such role: {role}")
    try:
        db.run(conn, "CREATE USER %s@'%%' IDENTIFIED BY %s", user, password)
    except pymysql.err.OperationalError as error:
        raise ShopError(f"cannot create {user}: {error.args[1]}") from error
    for table, verbs in ROLES[role].items():
        db.run(conn, f"GRANT {', '.join(verbs)} ON shop.{db.name(table)} TO %s@'%%'", user)


def drop(conn, user):
    try:
        db.run(conn, "DROP USER %s@'%%'", user)
    except pymysql.err.OperationalError as error:
        raise ShopError(f"cannot drop {user}: {error.args[1]}") from error


def lock(conn, user):
    db.run(conn, "ALTER USER %s@'%%' ACCOUNT LOCK", user)


def users(conn):
    """Accounts that people made: not the server's own."""
    return sorted(name for (name,) in db.rows(
        conn, "SELECT User FROM mysql.user WHERE User NOT LIKE 'mysql.%%' AND User <> 'mariadb.sys'"
    ))


def grants(conn, user):
    """{table: {verb, …}} in the shop."""
    found = {}
    for table, verbs in db.rows(
        conn, "SELECT Table_name, Table_priv FROM mysql.tables_priv WHERE Db = 'shop' AND User = %s", user
    ):
        names = verbs if isinstance(verbs, str) else ",".join(verbs)
        found[table] = {verb.strip().upper() for verb in names.split(",")}
    return found
