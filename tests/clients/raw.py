"""Clients that no library would be: raw.py WHAT [ARGUMENT]. Each says `done` at its end."""

import os
import resource
import select
import socket
import ssl
import struct
import sys
import time
import urllib.request

HOST = os.environ.get("PGHOST", "127.0.0.1")
PORT = int(os.environ.get("PGPORT", "5432"))
STARTUP = struct.pack("!I", 196608) + b"user\0postgres\0database\0shop\0client_encoding\0UTF8\0\0"
STARTUP = struct.pack("!I", len(STARTUP) + 4) + STARTUP


def connect():
    sock = socket.create_connection((HOST, PORT), timeout=60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def query(text):
    text = text.encode() if isinstance(text, str) else text
    return b"Q" + struct.pack("!I", len(text) + 5) + text + b"\0"


def until_ready(sock):
    """Everything up to ReadyForQuery, message by message."""
    stream = sock.makefile("rb")
    got = []
    while True:
        kind = stream.read(1)
        if not kind:
            raise EOFError
        (length,) = struct.unpack("!I", stream.read(4))
        got.append((kind, stream.read(length - 4)))
        if kind == b"Z":
            return got


def session():
    sock = connect()
    sock.sendall(STARTUP)
    until_ready(sock)
    return sock


def drain(sock):
    """Reads to the end, however it comes; how many bytes there were."""
    count = 0
    try:
        while data := sock.recv(65536):
            count += len(data)
    except OSError:
        # Reset, perhaps before anything was read.
        pass
    return count


def garbage(_):
    """Bytes that are no start-up of anything."""
    sock = connect()
    try:
        sock.sendall(bytes(range(255, -1, -1)) * 40)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        # The server has understood enough to reset it.
        pass
    drain(sock)


def truncated(_):
    """A start-up that ends in its middle."""
    sock = connect()
    sock.sendall(STARTUP[:13])
    sock.shutdown(socket.SHUT_WR)
    drain(sock)


def truncated_query(text):
    """A query that ends in its middle: nothing of it may be executed."""
    sock = session()
    sock.sendall(query(text)[:-6])
    sock.shutdown(socket.SHUT_WR)
    drain(sock)


def bad_message(text):
    """A good query, then a message of a type that there is not."""
    sock = session()
    sock.sendall(query(text))
    until_ready(sock)
    sock.sendall(b"\xfe\0\0\0\x08oops")
    drain(sock)


def short_length(text):
    """A good query, then a length below the least."""
    sock = session()
    sock.sendall(query(text))
    until_ready(sock)
    sock.sendall(b"Q\0\0\0\x01")
    drain(sock)


def huge_length(text):
    """A good query, then one that announces 2 GiB and never comes."""
    sock = session()
    sock.sendall(query(text))
    until_ready(sock)
    sock.sendall(b"Q\x7f\xff\xff\xf0" + b"SELECT 1")
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        # The server may have had enough already.
        pass
    drain(sock)


def slow(text):
    """One byte at a time, from the first on."""
    sock = connect()
    for byte in STARTUP:
        sock.sendall(bytes([byte]))
        time.sleep(0.001)
    until_ready(sock)
    for byte in query(text):
        sock.sendall(bytes([byte]))
        time.sleep(0.001)
    got = until_ready(sock)
    assert any(kind == b"C" for kind, _ in got), got


def plain(text):
    """One query; whatever comes of it."""
    sock = session()
    sock.sendall(query(text))
    drain_until_ready(sock)


def gss(text):
    """Asks for GSSAPI encryption and for TLS, is refused the first, wants no longer the second."""
    sock = connect()
    sock.sendall(struct.pack("!II", 8, 80877104))
    assert sock.recv(1) == b"N"
    sock.sendall(STARTUP)
    until_ready(sock)
    sock.sendall(query(text))
    until_ready(sock)


def late(text):
    """The same, a second after the session began."""
    sock = session()
    time.sleep(1)
    sock.sendall(query(text))
    drain_until_ready(sock)


def drain_until_ready(sock):
    try:
        until_ready(sock)
    except (EOFError, ConnectionError):
        print("ended early")


def half_close(text):
    """Sends a query, closes its side, and still gets the answer."""
    sock = session()
    sock.sendall(query(text))
    sock.shutdown(socket.SHUT_WR)
    got = until_ready(sock)
    assert any(kind == b"C" for kind, _ in got), got


def reset(text):
    """Sends a query and resets the connection before the answer, when standard input ends."""
    sock = session()
    sock.sendall(query(text))
    sys.stdin.read()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def silent(_):
    """Opens a connection, says nothing, closes it."""
    connect().close()


def silent_many(count):
    """Opens many connections, says nothing on any of them until standard input ends."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kept, refused = [], 0
    for _ in range(int(count)):
        try:
            kept.append(connect())
        except OSError:
            refused += 1
    print("connected", len(kept), "refused", refused, flush=True)
    sys.stdin.read()
    # Those that were ended for us in the meantime have something to read.
    ended = len(select_readable(kept))
    print("ended", ended, flush=True)


def select_readable(socks):
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    return poll.poll(0)


def not_utf8(name):
    """A statement that is no UTF-8, in a session that says it is Latin-1."""
    sock = session()
    sock.sendall(query("SET client_encoding TO 'LATIN1'"))
    until_ready(sock)
    sock.sendall(query(b"SELECT 'caf\xe9 \xff' /* id:" + name.encode() + b" */"))
    got = until_ready(sock)
    assert any(kind == b"C" for kind, _ in got), got


def stalled(text):
    """Asks for a big result, reads nothing until told on standard input, then everything."""
    sock = session()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.sendall(query(text))
    print("asked", flush=True)
    sys.stdin.readline()
    size, tail = 0, b""
    while not tail.endswith(b"Z\0\0\0\x05I"):
        data = sock.recv(1 << 20)
        if not data:
            raise EOFError
        size += len(data)
        tail = (tail + data)[-6:]
    print("got", size, flush=True)


def held(text):
    """Sends a query that will be held, and goes away when told to."""
    sock = session()
    sock.sendall(query(text))
    print("asked", flush=True)
    sys.stdin.readline()
    sock.close()


def flight(_):
    """Runs the query given on each line of standard input; says how each ended."""
    sock = session()
    for line in sys.stdin:
        sock.sendall(query(line.rstrip("\n")))
        try:
            got = until_ready(sock)
        except (EOFError, ConnectionError):
            print("lost", flush=True)
            return
        print("answered", next((p for k, p in got if k in b"CE"), b""), flush=True)


def http(url):
    """A page over plaintext HTTP."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.read() == b"a page of the lab\n"


def tls(name):
    """TLS to a name."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(connect(), server_hostname=name) as secure:
        secure.sendall(b"hello")
        assert secure.recv(1024) == b"secret hello"


def banner(_):
    """Waits for the server to speak first, then is echoed."""
    sock = connect()
    assert sock.recv(1024) == b"220 lab ready\r\n"
    sock.sendall(b"HELO pod\r\n")
    assert sock.recv(1024) == b"HELO pod\r\n"


def server_half_closes(_):
    """Goes on sending after the server has closed its side."""
    sock = connect()
    greeting = b""
    while data := sock.recv(1024):
        greeting += data
    assert greeting == b"220 and good night\r\n", greeting
    sock.sendall(b"x" * 100_000)
    sock.shutdown(socket.SHUT_WR)


def hold(_):
    """Says nothing, and how it is ended by the other side."""
    sock = connect()
    print("held", flush=True)
    try:
        print("closed" if sock.recv(1) == b"" else "spoken to", flush=True)
    except ConnectionResetError:
        print("reset", flush=True)


def refused(_):
    """A dial that nobody answers must fail, one way or the other."""
    try:
        sock = socket.create_connection((HOST, PORT), timeout=60)
        sock.sendall(STARTUP)
        assert drain(sock) == 0
    except OSError as error:
        print("refused", error)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else None)
    print("done", flush=True)
