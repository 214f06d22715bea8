"""Clients that work until standard input ends: soak_load.py PREFIX KIND...

For each command they say `answered ID` or, where the connection went away before its answer, `lost ID`.
What a command says follows from its id alone, see tests/src/soak/load.rs.
"""

import http.client
import os
import ssl
import struct
import sys
import threading
import time

import psycopg

from raw import query, session, until_ready

PREFIX = sys.argv[1]
PAUSE = float(os.environ.get("VLAB_PAUSE", "0.04"))
# Nothing that the soak does lasts as long: whoever waits longer hangs.
PATIENCE = 120
END = threading.Event()


def statement(name, number):
    """What the query of this number says."""
    text = f"SELECT {number} /* id:{name} */"
    return text + " /* " + "wide " * 4000 + "*/" if number % 50 == 0 else text


class Lost(Exception):
    """The connection went away: nobody knows what became of the command."""


class Psycopg:
    def __init__(self):
        self.connection = psycopg.connect(autocommit=True, connect_timeout=PATIENCE)

    def run(self, name, number):
        try:
            assert self.connection.execute(statement(name, number)).fetchone() == (number,)
        except psycopg.Error as error:
            if self.connection.closed or self.connection.broken:
                raise Lost from error
            raise

    def close(self):
        self.connection.close()


class Extended(Psycopg):
    """The same by the extended protocol, with a parameter."""

    def run(self, name, number):
        try:
            text = statement(name, number)
            got = self.connection.execute(text.replace(f"SELECT {number}", "SELECT %s::int8", 1), (number,))
            assert got.fetchone() == (number,)
        except psycopg.Error as error:
            if self.connection.closed or self.connection.broken:
                raise Lost from error
            raise


class Raw:
    def __init__(self):
        self.socket = session()
        self.socket.settimeout(PATIENCE)

    def run(self, name, number):
        try:
            self.socket.sendall(query(statement(name, number)))
            got = until_ready(self.socket)
        except (EOFError, ConnectionError, struct.error) as error:
            raise Lost from error
        assert any(kind == b"C" for kind, _ in got), got

    def close(self):
        self.socket.close()


class Https:
    def __init__(self):
        self.connection = http.client.HTTPSConnection(
            "mirror.googleapis.com", timeout=PATIENCE, context=ssl.create_default_context()
        )
        self.connection.connect()

    def run(self, name, number):
        try:
            self.connection.request("GET", f"/echo/id:{name}")
            answer = self.connection.getresponse()
            answer.read()
        except (http.client.HTTPException, ssl.SSLError, ConnectionError) as error:
            raise Lost from error
        assert answer.status == 200, answer.status

    def close(self):
        self.connection.close()


class Drip:
    """One byte a second, or as fast as a short run wants it."""

    def __init__(self):
        self.socket = session()
        self.pause = float(os.environ.get("VLAB_DRIP", "1"))

    def run(self, name, number):
        try:
            for byte in query(f"SELECT {number} /* id:{name} */"):
                self.socket.sendall(bytes([byte]))
                time.sleep(self.pause)
            got = until_ready(self.socket)
        except (EOFError, ConnectionError, struct.error) as error:
            raise Lost from error
        assert any(kind == b"C" for kind, _ in got), got

    def close(self):
        self.socket.close()


KINDS = {"psycopg": Psycopg, "extended": Extended, "raw": Raw, "https": Https, "drip": Drip}


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def work(worker, kind):
    number = 0
    client = None
    while not END.is_set():
        if client is None:
            try:
                client = KINDS[kind]()
            except (OSError, EOFError, struct.error, psycopg.Error) as error:
                # Nothing was asked yet. While nobody captures, nobody connects.
                print(f"{worker}: {error}", file=sys.stderr, flush=True)
                END.wait(0.1)
                continue
        number += 1
        name = f"{PREFIX}-{worker}-{number}"
        try:
            client.run(name, number)
            say(f"answered {name}")
        except Lost:
            say(f"lost {name}")
            client.close()
            client = None
        END.wait(PAUSE)
    if client is not None:
        client.close()


def guarded(worker, kind):
    try:
        work(worker, kind)
    except BaseException as error:
        say(f"failed {worker}: {error!r}")
        raise


if __name__ == "__main__":
    workers = [
        threading.Thread(target=guarded, args=(f"{kind}{at}", kind)) for at, kind in enumerate(sys.argv[2:])
    ]
    for worker in workers:
        worker.start()
    sys.stdin.read()
    END.set()
    for worker in workers:
        worker.join()
    say("done")
