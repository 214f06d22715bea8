"""libpq 17 or later with TLS from the first byte: verified and not, with statements, passwords, cancelling, and the
newest version of the protocol."""

import os
import threading

import psycopg

from vlab import did, mark

ROOTS = os.environ["VLAB_ROOTS"]
QUERY = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
DIRECT = {"sslnegotiation": "direct", "autocommit": True}

for mode in ("require", "verify-ca", "verify-full"):
    roots = {"sslrootcert": ROOTS} if mode.startswith("verify") else {}
    with psycopg.connect(sslmode=mode, **roots, **DIRECT) as conn:
        text = mark(mode, QUERY)
        assert conn.execute(text).fetchone() == (True,)
        did(mode, text, rows=1)
        assert conn.pgconn.ssl_in_use

for version in ("3.0", "3.2"):
    with psycopg.connect(
        sslmode="require",
        min_protocol_version=version,
        max_protocol_version=version,
        **DIRECT,
    ) as conn:
        text = mark(f"sleep-{version}", "SELECT pg_sleep(600)")
        ended = threading.Event()

        def cancel():
            # Only what is running can be cancelled: asked again until it is.
            while not ended.wait(0.3):
                conn.cancel_safe()

        thread = threading.Thread(target=cancel)
        thread.start()
        try:
            conn.execute(text)
            raise AssertionError("was not cancelled")
        except psycopg.errors.QueryCanceled as error:
            did(f"sleep-{version}", text, status="error", sqlstate=error.sqlstate)
        finally:
            ended.set()
            thread.join()
        text = mark(f"after-{version}", "SELECT %s::int4")
        assert conn.execute(text, (version[0],)).fetchone() == (3,)
        did(f"after-{version}", text.replace("%s", "$1"), op="execute", rows=1, parameters=["3"])

CLERK = {"user": "clerk", "password": "secret of the clerk", "sslmode": "require"}
for binding in ("disable", "prefer"):
    with psycopg.connect(channel_binding=binding, **CLERK, **DIRECT) as conn:
        text = mark(f"clerk-{binding}", "SELECT current_user")
        assert conn.execute(text).fetchone() == ("clerk",)
        did(f"clerk-{binding}", text, rows=1)
try:
    psycopg.connect(channel_binding="require", **CLERK, **DIRECT)
    raise AssertionError("a channel was bound that is not the server's")
except psycopg.OperationalError as error:
    print(error)
