"""COPY in both directions, text and binary, finished and given up."""

import psycopg

from vlab import did, mark

with psycopg.connect(autocommit=True) as conn:
    cursor = conn.cursor()
    text = mark("in", "COPY item FROM STDIN")
    with cursor.copy(text) as copy:
        for number in range(500):
            copy.write_row((5000 + number, f"copied {number}", number))
    assert cursor.rowcount == 500
    did("in", text, rows=500)

    text = mark("out", "COPY (SELECT * FROM item WHERE id >= 5000) TO STDOUT")
    with cursor.copy(text) as copy:
        assert sum(1 for _ in copy.rows()) == 500
    did("out", text, rows=500)

    text = mark("out-binary", "COPY (SELECT id FROM item WHERE id >= 5000) TO STDOUT (FORMAT binary)")
    with cursor.copy(text) as copy:
        assert sum(len(block) for block in copy) > 500 * 8
    did("out-binary", text, rows=500)

    text = mark("given-up", "COPY item FROM STDIN")
    try:
        with cursor.copy(text) as copy:
            copy.write_row((9000, "never", 0))
            raise KeyError("the client changes its mind")
    except KeyError:
        did("given-up", text, status="error", sqlstate="57014")

    text = mark("bad-row", "COPY item FROM STDIN")
    try:
        with cursor.copy(text) as copy:
            copy.write("no number\tx\t1\n")
        raise AssertionError("a bad row was taken")
    except psycopg.errors.InvalidTextRepresentation as error:
        did("bad-row", text, status="error", sqlstate=error.sqlstate)

    text = mark("after", "SELECT count(*) FROM item WHERE id >= 5000")
    assert cursor.execute(text).fetchone() == (500,)
    did("after", text, rows=1)
