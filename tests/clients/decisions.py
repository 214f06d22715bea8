"""psycopg under a policy that denies and holds: decisions.py WHAT."""

import sys
import threading

import psycopg

from vlab import did, mark, new, say


def expect(kind, run):
    try:
        run()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def denied():
    """The connection goes on."""
    with psycopg.connect(autocommit=True) as conn:
        text = mark("denied", "DELETE FROM item -- lab:deny\n")
        error = expect(psycopg.errors.InsufficientPrivilege, lambda: conn.execute(text))
        assert "the lab says no" in str(error), error
        did("denied", text, status="not_forwarded", decision="denied")
        text = mark("after", "SELECT count(*) FROM item")
        assert conn.execute(text).fetchone() == (100,)
        did("after", text, rows=1)
        text = mark("denied-extended", "DELETE FROM item WHERE id = $1 /* lab:deny */")
        cursor = psycopg.RawCursor(conn)
        expect(psycopg.errors.InsufficientPrivilege, lambda: cursor.execute(text, (1,)))
        did("denied-extended", text, op="execute", status="not_forwarded", decision="denied", parameters=["1"])
        text = mark("after-extended", "SELECT count(*) FROM item WHERE id > $1")
        assert cursor.execute(text, (0,)).fetchone() == (100,)
        did("after-extended", text, op="execute", rows=1, parameters=["0"])


def transaction():
    """Fails as by an error of the server's own: what follows is refused, and nothing is kept."""
    with psycopg.connect() as conn:
        text = mark("insert", "INSERT INTO item VALUES (3001, 'x', 1)")
        conn.execute(text)
        did("insert", text, rows=1)
        text = mark("denied", "DELETE FROM item /* lab:deny */")
        expect(psycopg.errors.InsufficientPrivilege, lambda: conn.execute(text))
        did("denied", text, status="not_forwarded", decision="denied")
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        text = mark("ignored", "SELECT 1")
        error = expect(psycopg.errors.InFailedSqlTransaction, lambda: conn.execute(text))
        did("ignored", text, status="error", sqlstate=error.sqlstate)
        conn.commit()
    with psycopg.connect(autocommit=True) as conn:
        text = mark("kept", "SELECT count(*) FROM item WHERE id = 3001")
        assert conn.execute(text).fetchone() == (0,)
        did("kept", text, rows=1)


def pipeline():
    """In the middle: what was before has its results, what comes after is skipped."""
    with psycopg.connect(autocommit=True) as conn:
        text = {name: mark(name, f"INSERT INTO item VALUES ($1, '{name}', 1)") for name in ("first", "last")}
        text["middle"] = mark("middle", "DELETE FROM item WHERE id = $1 /* lab:deny */")
        cursor = psycopg.RawCursor(conn)

        def run():
            # Without autocommit of each: one Sync at the end, one implicit transaction.
            with conn.pipeline():
                for number, name in enumerate(("first", "middle", "last")):
                    cursor.execute(text[name], (3100 + number,))

        expect(psycopg.errors.InsufficientPrivilege, run)
        did("first", text["first"], op="execute", rows=1, parameters=["3100"])
        did("middle", text["middle"], op="execute", status="not_forwarded", decision="denied", parameters=["3101"])
        did("last", text["last"], op="execute", status="not_executed", parameters=["3102"])
        kept = mark("kept", "SELECT count(*) FROM item WHERE id >= 3100")
        # The implicit transaction of the pipeline failed as a whole.
        assert conn.execute(kept).fetchone() == (0,)
        did("kept", kept, rows=1)
        # And with a Sync behind each, only the denied one fails.
        synced = {name: mark(f"synced-{name}", "SELECT $1::int4") for name in ("a", "c")}
        synced["b"] = mark("synced-b", "SELECT $1::int4 /* lab:deny */")
        with conn.pipeline() as pipe:
            results = {}
            for name in ("a", "b", "c"):
                results[name] = psycopg.RawCursor(conn)
                try:
                    results[name].execute(synced[name], (7,))
                    pipe.sync()
                except psycopg.errors.InsufficientPrivilege:
                    assert name == "b", name
            assert results["a"].fetchone() == (7,)
            assert results["c"].fetchone() == (7,)
        did("synced-a", synced["a"], op="execute", rows=1, parameters=["7"])
        did("synced-b", synced["b"], op="execute", status="not_forwarded", decision="denied", parameters=["7"])
        did("synced-c", synced["c"], op="execute", rows=1, parameters=["7"])


def released():
    """Held until somebody says yes; asked twice, by both protocols."""
    with psycopg.connect(autocommit=True) as conn:
        text = mark("simple", "UPDATE item SET price = 0 WHERE id = 5 /* lab:hold=3600 */")
        assert conn.execute(text).rowcount == 1
        did("simple", text, rows=1)
        text = mark("extended", "UPDATE item SET price = 0 WHERE id = $1 /* lab:hold=3600 */")
        assert psycopg.RawCursor(conn).execute(text, (6,)).rowcount == 1
        did("extended", text, op="execute", rows=1, parameters=["6"])
        text = mark("after", "SELECT 1")
        conn.execute(text)
        did("after", text, rows=1)


def refused():
    """Held until somebody says no."""
    with psycopg.connect(autocommit=True) as conn:
        text = mark("held", "DELETE FROM item /* lab:hold=3600 */")
        expect(psycopg.errors.InsufficientPrivilege, lambda: conn.execute(text))
        did("held", text, status="not_forwarded", decision="denied")
        text = mark("after", "SELECT count(*) FROM item")
        assert conn.execute(text).fetchone() == (100,)
        did("after", text, rows=1)


def expired():
    """Nobody says anything."""
    with psycopg.connect(autocommit=True) as conn:
        text = mark("held", "DELETE FROM item /* lab:hold=1 */")
        expect(psycopg.errors.QueryCanceled, lambda: conn.execute(text))
        did("held", text, status="not_forwarded", decision="expired")
        text = mark("after", "SELECT count(*) FROM item")
        assert conn.execute(text).fetchone() == (100,)
        did("after", text, rows=1)


def cancelled():
    """The client gives up while it is held."""
    with psycopg.connect(autocommit=True) as conn:
        text = mark("held", "DELETE FROM item /* lab:hold=3600 */")

        def cancel():
            # The scenario says when it is held.
            sys.stdin.readline()
            conn.cancel_safe()

        thread = threading.Thread(target=cancel)
        thread.start()
        expect(psycopg.errors.QueryCanceled, lambda: conn.execute(text))
        thread.join()
        did("held", text, status="not_forwarded", decision="abandoned")
        text = mark("after", "SELECT count(*) FROM item")
        assert conn.execute(text).fetchone() == (100,)
        did("after", text, rows=1)


def several():
    """One message with several statements is one decision."""
    with psycopg.connect(autocommit=True) as conn:
        first = f"DELETE FROM item WHERE id = 1 /* id:{new('first')} */;"
        second = f" SELECT 2 /* lab:deny id:{new('second')} */"
        expect(psycopg.errors.InsufficientPrivilege, lambda: conn.execute(first + second))
        did("first", first, status="not_forwarded", decision="denied")
        did("second", second, status="not_forwarded", decision="denied")
        text = mark("after", "SELECT count(*) FROM item")
        assert conn.execute(text).fetchone() == (100,)
        did("after", text, rows=1)


globals()[sys.argv[1]]()
say("done")
