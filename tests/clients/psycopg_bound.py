"""psycopg that insists on a bound channel: what the environment says is all that it is told."""

import psycopg

from vlab import did, mark

with psycopg.connect(autocommit=True) as conn:
    text = mark("psycopg-bound", "SELECT current_user")
    assert conn.execute(text).fetchone() == ("clerk",)
    did("psycopg-bound", text, rows=1)
