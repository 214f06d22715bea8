"""psycopg without parameters: the simple protocol, its failures, notices and transactions."""

import psycopg

from vlab import did, mark, new

with psycopg.connect(autocommit=True) as conn:
    text = mark("one", "SELECT 1")
    assert conn.execute(text).fetchall() == [(1,)]
    did("one", text, rows=1)

    text = mark("hundred", "SELECT * FROM item ORDER BY id")
    assert len(conn.execute(text).fetchall()) == 100
    did("hundred", text, rows=100)

    text = mark("update", "UPDATE item SET price = price + 1 WHERE id <= 7")
    assert conn.execute(text).rowcount == 7
    did("update", text, rows=7)

    text = mark("zero", "SELECT 1/0")
    try:
        conn.execute(text)
        raise AssertionError("a division by zero succeeded")
    except psycopg.errors.DivisionByZero as error:
        did("zero", text, status="error", sqlstate=error.sqlstate)

    text = mark("syntax", "SELEKT 1")
    try:
        conn.execute(text)
        raise AssertionError("a syntax error succeeded")
    except psycopg.errors.SyntaxError as error:
        did("syntax", text, status="error", sqlstate=error.sqlstate)

    notices = []
    conn.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
    text = mark("notice", "DO $$ BEGIN RAISE NOTICE 'mind the step'; END $$")
    conn.execute(text)
    assert notices == ["mind the step"], notices
    did("notice", text)

    # One message, several statements: one record each. Joined, the texts are the message.
    first = f"SELECT 1 /* id:{new('first')} */;"
    second = f" SELECT 2, ';' /* id:{new('second')} */;"
    third = f" SELECT 3 /* id:{new('third')} */"
    cursor = conn.execute(first + second + third)
    for name, text in (("first", first), ("second", second), ("third", third)):
        assert len(cursor.fetchall()) == 1
        cursor.nextset()
        did(name, text, rows=1)

    # The second fails: the third is never executed.
    first = f"SELECT 1 /* id:{new('before')} */;"
    second = f" SELECT 1/0 /* id:{new('middle')} */;"
    third = f" SELECT 3 /* id:{new('after')} */"
    try:
        conn.execute(first + second + third)
        raise AssertionError("a division by zero succeeded")
    except psycopg.errors.DivisionByZero as error:
        did("before", first, rows=1)
        did("middle", second, status="error", sqlstate=error.sqlstate)
        did("after", third, status="not_executed")

    for name in ("ä ö ü 漢字 \U0001f642", "\t\n 'quoted' \\ \"x\""):
        quoted = name.replace("'", "''")
        key = f"text{len(name)}"
        text = mark(key, f"SELECT '{quoted}'")
        assert conn.execute(text).fetchone() == (name,)
        did(key, text, rows=1)

with psycopg.connect() as conn:
    # BEGIN and COMMIT are psycopg's own and carry no id.
    text = mark("in-transaction", "INSERT INTO item VALUES (1001, 'new', 1)")
    conn.execute(text)
    did("in-transaction", text, rows=1)
    conn.commit()

    text = mark("breaks", "INSERT INTO item VALUES (1001, 'again', 1)")
    try:
        conn.execute(text)
        raise AssertionError("a duplicate key succeeded")
    except psycopg.errors.UniqueViolation as error:
        did("breaks", text, status="error", sqlstate=error.sqlstate)
    text = mark("ignored", "SELECT 1")
    try:
        conn.execute(text)
        raise AssertionError("a failed transaction went on")
    except psycopg.errors.InFailedSqlTransaction as error:
        did("ignored", text, status="error", sqlstate=error.sqlstate)
    conn.rollback()
