"""asyncpg: prepared statements, binary values, cursors on portals, COPY, executemany."""

import asyncio
import os

import asyncpg

from vlab import did, mark


async def main():
    conn = await asyncpg.connect(host=os.environ["PGHOST"], ssl=os.environ.get("VLAB_SSL", "disable"))

    text = mark("fetch", "SELECT id, name FROM item WHERE id = $1 AND name <> $2")
    assert len(await conn.fetch(text, 7, "x")) == 1
    did("fetch", text, op="execute", rows=1, parameters=["7", "x"])

    text = mark("simple", "CREATE TABLE asyncpg_made (a int8, b text)")
    await conn.execute(text)
    did("simple", text)

    statement = await conn.prepare(text := mark("prepared", "SELECT $1::int8 * 2"))
    for number in range(5):
        assert await statement.fetchval(number) == number * 2
        # fetchval asks for one row: the portal stays open behind it.
        did("prepared", text, op="execute", rows=1, status="suspended", parameters=[str(number)])

    text = mark("many", "INSERT INTO asyncpg_made VALUES ($1, $2)")
    await conn.executemany(text, [(n, f"t{n}") for n in range(15)])
    for number in range(15):
        did("many", text, op="execute", rows=1, parameters=[str(number), f"t{number}"])

    async with conn.transaction():
        text = mark("cursor", "SELECT id FROM item WHERE id <= 25 ORDER BY id")
        seen = [row["id"] async for row in conn.cursor(text, prefetch=10)]
        assert seen == list(range(1, 26))
        did("cursor", text, op="execute", status="suspended", rows=10)
        did("cursor", text, op="fetch", status="suspended", rows=10)
        did("cursor", text, op="fetch", rows=5)

    text = mark("zero", "SELECT 1 / $1::int4")
    try:
        await conn.fetch(text, 0)
        raise AssertionError("a division by zero succeeded")
    except asyncpg.DivisionByZeroError as error:
        did("zero", text, op="execute", status="error", sqlstate=error.sqlstate, parameters=["0"])

    # COPY's text is asyncpg's own and carries no id.
    await conn.copy_records_to_table("asyncpg_made", records=[(n, "copied") for n in range(40)])
    text = mark("count", "SELECT count(*) FROM asyncpg_made")
    assert [tuple(row) for row in await conn.fetch(text)] == [(55,)]
    did("count", text, op="execute", rows=1, parameters=[])
    await conn.close()


asyncio.run(main())
