"""A database and BigQuery, one after the other, as a program with two data sources has it."""

import psycopg
from google.cloud import bigquery

from vlab import did, mark

with psycopg.connect(autocommit=True) as conn:
    text = mark("postgresql", "SELECT count(*) FROM item")
    assert conn.execute(text).fetchone() == (100,)
    did("postgresql", text, rows=1)
    text = mark("wrong", "SELECT 1/0")
    try:
        conn.execute(text)
        raise AssertionError("a division by zero succeeded")
    except psycopg.errors.DivisionByZero as error:
        did("wrong", text, status="error", sqlstate=error.sqlstate)

client = bigquery.Client()
text = mark("bigquery", "SELECT 1 AS one")
assert [row.one for row in client.query_and_wait(text)] == [1]
did("bigquery", text, rows=1, method="bigquery.jobs.query")
text = mark("job", "SELECT 2 AS two")
assert [row.two for row in client.query(text).result()] == [2]
did("job", text, method="bigquery.jobs.insert")
