"""Connections and the few ways in which statements are run."""

import os
from contextlib import contextmanager

import pymysql


def connect(user="root", password="", database="shop", secure=False):
    """`secure` encrypts: what accounts with a password need."""
    return pymysql.connect(
        host=os.environ.get("SHOP_DB_HOST", "db"),
        user=user,
        password=password,
        database=database,
        autocommit=True,
        connect_timeout=10,
        ssl={"check_hostname": False, "verify_mode": False} if secure else None,
    )


@contextmanager
def transaction(conn):
    """All or nothing."""
    conn.begin()
    try:
        yield
    except BaseException:
        conn.rollback()
        raise
    conn.commit()


def run(conn, sql, *args):
    """Rows that changed."""
    with conn.cursor() as cursor:
        return cursor.execute(sql, args or None)


def insert(conn, sql, *args):
    """The new row's id."""
    with conn.cursor() as cursor:
        cursor.execute(sql, args or None)
        return cursor.lastrowid


def rows(conn, sql, *args):
    with conn.cursor() as cursor:
        cursor.execute(sql, args or None)
        return list(cursor.fetchall())


def row(conn, sql, *args):
    with conn.cursor() as cursor:
        cursor.execute(sql, args or None)
        return cursor.fetchone()


def value(conn, sql, *args):
    found = row(conn, sql, *args)
    return found[0] if found else None


def name(text):
    """An identifier, quoted."""
    return "`" + text.replace("`", "``") + "`"
