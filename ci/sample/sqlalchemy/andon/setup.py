"""The databases and the account that SQLAlchemy's test suite asks for (README.unittests.rst)."""

import pymysql

STATEMENTS = (
    "CREATE DATABASE test CHARACTER SET utf8mb4",
    "CREATE DATABASE test_schema CHARACTER SET utf8mb4",
    "CREATE USER scott@'%' IDENTIFIED BY 'tiger'",
    "GRANT ALL ON *.* TO scott@'%'",
)

with pymysql.connect(host="db", user="root", autocommit=True) as connection, connection.cursor() as cursor:
    for statement in STATEMENTS:
        cursor.execute(statement)
