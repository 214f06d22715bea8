"""Just enough of PostgreSQL's protocol (version 3) to be taken for a server."""

import socket
import struct


def message(kind, payload=b""):
    return kind + struct.pack("!I", len(payload) + 4) + payload


def error(code, text, severity="ERROR"):
    fields = b"S%s\0V%s\0C%s\0M%s\0\0" % tuple(s.encode() for s in (severity, severity, code, text))
    return message(b"E", fields)


READY = message(b"Z", b"I")
ONE_ROW = (
    message(b"T", b"\0\1one\0" + struct.pack("!IhIhih", 0, 0, 23, 4, -1, 0))
    + message(b"D", b"\0\1" + struct.pack("!I", 1) + b"1")
    + message(b"C", b"SELECT 1\0")
)


def exactly(peer, count):
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def startup(peer):
    """Reads the start-up, refusing encryption, and says that everything is well."""
    while True:
        (length,) = struct.unpack("!I", exactly(peer, 4))
        body = exactly(peer, length - 4)
        (code,) = struct.unpack("!I", body[:4])
        if code in (80877103, 80877104):
            peer.sendall(b"N")
            continue
        if code == 80877102:
            raise EOFError
        break
    peer.sendall(
        message(b"R", struct.pack("!I", 0))
        + message(b"S", b"server_version\x0015.0\0")
        + message(b"S", b"client_encoding\0UTF8\0")
        + message(b"S", b"standard_conforming_strings\0on\0")
        + message(b"K", struct.pack("!II", 4711, 815))
        + READY
    )


def messages(peer):
    """Every message of the client: (type, payload)."""
    while True:
        try:
            kind = exactly(peer, 1)
            (length,) = struct.unpack("!I", exactly(peer, 4))
            yield kind, exactly(peer, length - 4)
        except (EOFError, ConnectionError):
            return


def listen(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    server.listen(64)
    print("listening", flush=True)
    return server
