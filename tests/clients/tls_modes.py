"""psycopg and asyncpg with every sslmode. Whoever verifies has the roots that the environment names for it."""

import asyncio
import os

import asyncpg
import psycopg

from vlab import did, mark

MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
ROOTS = os.environ["VLAB_ROOTS"]
# What the server says of its own connection: that is the agent's leg.
QUERY = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def roots(mode):
    return {"sslrootcert": ROOTS} if mode.startswith("verify") else {}


for mode in MODES:
    with psycopg.connect(sslmode=mode, autocommit=True, **roots(mode)) as conn:
        text = mark(f"psycopg-{mode}", QUERY)
        (upstream,) = conn.execute(text).fetchone()
        did(f"psycopg-{mode}", text, rows=1)
        print("psycopg", mode, "client" if conn.pgconn.ssl_in_use else "plain", upstream, flush=True)
        assert conn.pgconn.ssl_in_use == (mode not in ("disable", "allow")), mode
        # Never less upstream than toward the client.
        assert upstream or not conn.pgconn.ssl_in_use, mode

# With a password, by SCRAM: passed through where no channel is bound.
for mode in ("disable", "require"):
    with psycopg.connect(
        user="clerk", password="secret of the clerk", sslmode=mode, autocommit=True
    ) as conn:
        text = mark(f"scram-{mode}", "SELECT current_user")
        assert conn.execute(text).fetchone() == ("clerk",)
        did(f"scram-{mode}", text, rows=1)


async def asynchronous():
    for mode in MODES:
        if mode.startswith("verify"):
            os.environ["PGSSLROOTCERT"] = ROOTS
        conn = await asyncpg.connect(host=os.environ["PGHOST"], ssl=mode)
        text = mark(f"asyncpg-{mode}", QUERY)
        await conn.fetchval(text)
        did(f"asyncpg-{mode}", text, op="execute", status="suspended")
        await conn.close()


asyncio.run(asynchronous())
