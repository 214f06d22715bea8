"""Cancelling on a second connection; LISTEN and NOTIFY; a login by SCRAM."""

import threading
import time

import psycopg

from vlab import did, mark

with psycopg.connect(autocommit=True) as conn:
    text = mark("sleep", "SELECT pg_sleep(600)")
    started = threading.Event()

    def cancel():
        started.wait()
        # Only what is running can be cancelled: asked again until it is.
        while not ended.wait(0.3):
            conn.cancel_safe()

    ended = threading.Event()
    thread = threading.Thread(target=cancel)
    thread.start()
    started.set()
    try:
        conn.execute(text)
        raise AssertionError("was not cancelled")
    except psycopg.errors.QueryCanceled as error:
        did("sleep", text, status="error", sqlstate=error.sqlstate)
    finally:
        ended.set()
        thread.join()

    text = mark("listen", "LISTEN news")
    conn.execute(text)
    did("listen", text)
    with psycopg.connect(autocommit=True) as other:
        text = mark("notify", "NOTIFY news, 'hear'")
        other.execute(text)
        did("notify", text)
    assert [n.payload for n in conn.notifies(timeout=30, stop_after=1)] == ["hear"]
    text = mark("after", "SELECT 1")
    conn.execute(text)
    did("after", text, rows=1)

with psycopg.connect(user="clerk", password="secret of the clerk", autocommit=True) as conn:
    text = mark("clerk", "SELECT current_user")
    assert conn.execute(text).fetchone() == ("clerk",)
    did("clerk", text, rows=1)

try:
    psycopg.connect(user="clerk", password="wrong")
    raise AssertionError("a wrong password was taken")
except psycopg.OperationalError:
    pass
