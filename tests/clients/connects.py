"""So many connects, one after the other: connects.py query|garbage|bare|quic|raw COUNT. Says how each went: `ok` or
the error's name. Each `query` is a session with one statement; `bare` says nothing and closes; `quic` is a datagram to
port 443, `raw` a raw socket for ICMP."""

import errno
import os
import socket
import struct
import sys

HOST = os.environ.get("PGHOST", "127.0.0.1")
PORT = int(os.environ.get("PGPORT", "5432"))
STARTUP = struct.pack("!I", 196608) + b"user\0postgres\0database\0shop\0client_encoding\0UTF8\0\0"
STARTUP = struct.pack("!I", len(STARTUP) + 4) + STARTUP


def until_ready(stream):
    while True:
        kind, length = struct.unpack("!cI", stream.read(5))
        stream.read(length - 4)
        if kind == b"Z":
            return


def once(what):
    if what == "quic":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"initial", (HOST, 443))
        return
    if what == "raw":
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
        return
    with socket.create_connection((HOST, PORT), timeout=30) as sock:
        if what == "query":
            stream = sock.makefile("rb")
            sock.sendall(STARTUP)
            until_ready(stream)
            text = b"SELECT 1\0"
            sock.sendall(b"Q" + struct.pack("!I", len(text) + 4) + text)
            until_ready(stream)
            sock.sendall(b"X\0\0\0\x04")
        elif what == "garbage":
            sock.sendall(bytes(range(255, -1, -1)))
            sock.shutdown(socket.SHUT_WR)
        try:
            while what != "bare" and sock.recv(65536):
                pass
        except OSError:
            # The server has had enough.
            pass


for _ in range(int(sys.argv[2])):
    try:
        once(sys.argv[1])
        print("ok", flush=True)
    except OSError as error:
        print(errno.errorcode.get(error.errno, str(error)), flush=True)
print("done", flush=True)
