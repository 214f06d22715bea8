"""psycopg with parameters: the extended protocol, prepared statements, cursors, pipelines."""

import psycopg

from vlab import did, mark


def sent(text):
    """psycopg numbers the placeholders."""
    number = 0
    while "%s" in text or "%b" in text:
        number += 1
        at = min(i for i in (text.find("%s"), text.find("%b")) if i >= 0)
        text = text[:at] + f"${number}" + text[at + 2 :]
    return text


with psycopg.connect(autocommit=True) as conn:
    text = mark("typed", "SELECT %s::int8, %s::text, %s::float8, %s::bool, %s::text")
    row = conn.execute(text, (42, "it's", 1.5, True, None)).fetchone()
    assert row == (42, "it's", 1.5, True, None), row
    did("typed", sent(text), op="execute", rows=1, parameters=["42", "it's", "1.5", "true", None])

    text = mark("binary", "SELECT %b::int4, %b::int8, %b::text, %b::bool")
    row = conn.execute(text, (70000, 5_000_000_000, "näh", False)).fetchone()
    assert row == (70000, 5_000_000_000, "näh", False), row
    did("binary", sent(text), op="execute", rows=1, parameters=["70000", "5000000000", "näh", "false"])

    # Prepared by itself from the sixth time on: named statements.
    text = mark("repeated", "SELECT name FROM item WHERE id = %s")
    for number in range(1, 13):
        assert conn.execute(text, (number,)).fetchone() == (f"item {number}",)
        did("repeated", sent(text), op="execute", rows=1, parameters=[str(number)])

    text = mark("prepared", "SELECT %s::int4 + 1")
    for number in range(3):
        assert conn.execute(text, (number,), prepare=True).fetchone() == (number + 1,)
        did("prepared", sent(text), op="execute", rows=1, parameters=[str(number)])

    text = mark("zero", "SELECT 1/%s::int4")
    try:
        conn.execute(text, (0,))
        raise AssertionError("a division by zero succeeded")
    except psycopg.errors.DivisionByZero as error:
        did("zero", sent(text), op="execute", status="error", sqlstate=error.sqlstate, parameters=["0"])

    text = mark("bad-value", "SELECT %s::int4")
    try:
        conn.execute(text, ("no number",))
        raise AssertionError("no number was taken for one")
    except psycopg.errors.InvalidTextRepresentation as error:
        did("bad-value", sent(text), op="execute", status="error", sqlstate=error.sqlstate,
            parameters=["no number"])

    # executemany is a pipeline of its own.
    text = mark("many", "INSERT INTO item VALUES (%s, %s, %s)")
    rows = [(2000 + n, f"n{n}", n) for n in range(20)]
    conn.cursor().executemany(text, rows)
    for number, name, price in rows:
        did("many", sent(text), op="execute", rows=1, parameters=[str(number), name, str(price)])

with psycopg.connect(autocommit=True) as conn:
    # A cursor on the server: FETCH and CLOSE are statements without an id of ours.
    with conn.transaction(), conn.cursor(name="on the server") as cursor:
        text = mark("declared", "SELECT id FROM item WHERE id <= 50 ORDER BY id")
        cursor.itersize = 20
        cursor.execute(text)
        assert len(list(cursor)) == 50
        # psycopg sends DECLARE by the extended protocol.
        did("declared", op="execute")

with psycopg.connect(autocommit=True) as conn:
    texts = {}
    with conn.pipeline():
        for number in range(10):
            texts[number] = mark(f"pipeline-{number}", "SELECT %s::int4")
            conn.execute(texts[number], (number,))
    for number, text in texts.items():
        did(f"pipeline-{number}", sent(text), op="execute", rows=1, parameters=[str(number)])

    # One in the middle fails: what follows up to the Sync is not executed. With autocommit off psycopg
    # begins a transaction, so that there is one Sync at the end.
    conn.autocommit = False
    try:
        with conn.pipeline():
            conn.execute(mark("ok", "SELECT 1 + %s"), (1,))
            conn.execute(mark("fails", "SELECT 1 / %s"), (0,))
            conn.execute(mark("skipped", "SELECT 2 + %s"), (2,))
    except psycopg.errors.DivisionByZero as error:
        did("ok", sent(mark("ok", "SELECT 1 + %s")), op="execute", rows=1)
        did("fails", sent(mark("fails", "SELECT 1 / %s")), op="execute", status="error", sqlstate=error.sqlstate)
        did("skipped", sent(mark("skipped", "SELECT 2 + %s")), op="execute", status="not_executed")
    else:
        raise AssertionError("a division by zero succeeded")
    conn.rollback()
