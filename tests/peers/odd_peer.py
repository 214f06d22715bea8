"""HTTP/1.1 over TLS as no server should speak it: odd_peer.py ADDRESS PORT CERTIFICATE KEY.

The first part of the path says what it does. Each request's head is one line of JSON on standard output, as
it came: names in the case in which they were written, in their order.
"""

import gzip
import json
import socket
import ssl
import sys
import threading
import time

from pgpeer import listen

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-CaSe-KePt: Yes\r\n\r\nok\n"


def head(stream):
    """The request line and the headers."""
    lines = []
    while True:
        line = stream.readline(1 << 20)
        if not line:
            raise EOFError
        line = line.rstrip(b"\r\n")
        if not line:
            return lines
        lines.append(line)


def body(stream, lines):
    """Reads the body, of whichever framing."""
    headers = {name.lower(): value.strip() for name, value in (line.split(b":", 1) for line in lines[1:])}
    if b"content-length" in headers:
        return stream.read(int(headers[b"content-length"]))
    if headers.get(b"transfer-encoding", b"").lower() != b"chunked":
        return b""
    data = b""
    while True:
        size = int(stream.readline().split(b";")[0], 16)
        data += stream.read(size)
        stream.readline()
        if size == 0:
            return data


def plain(peer, stream, lines):
    body(stream, lines)
    peer.sendall(OK)


def interim(peer, stream, lines):
    """Interim answers before the answer (RFC 9110, 15.2)."""
    body(stream, lines)
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style>; rel=preload\r\n\r\n"
    peer.sendall(hints + b"HTTP/1.1 102 Processing\r\n\r\n" + OK)


def early(peer, stream, lines):
    """Answers before the request is complete, then reads the rest."""
    peer.sendall(OK)
    body(stream, lines)


def early_close(peer, stream, lines):
    """Answers before the request is complete, and closes."""
    peer.sendall(OK.replace(b"200 OK", b"413 Too Large").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    peer.shutdown(socket.SHUT_WR)
    time.sleep(0.2)


def short(peer, stream, lines):
    """The body ends before its length."""
    body(stream, lines)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    raise EOFError


def short_chunk(peer, stream, lines):
    """The body ends within a chunk."""
    body(stream, lines)
    peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf")
    raise EOFError


def until_close(peer, stream, lines):
    """A body without a length: it ends with the connection."""
    body(stream, lines)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end\n")
    peer.unwrap()
    raise EOFError


def bomb(peer, stream, lines):
    """64 MiB of nothing, in some 64 KiB of gzip."""
    body(stream, lines)
    data = gzip.compress(b"\0" * (64 << 20))
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(data) + data)


def deep(peer, stream, lines):
    """JSON nested ten thousand deep."""
    body(stream, lines)
    data = b"[" * 10_000 + b"]" * 10_000
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20000\r\n\r\n" + data)


def upgrade(peer, stream, lines):
    """Becomes another protocol, and echoes."""
    peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lab\r\n\r\n")
    while data := stream.read1(65536):
        peer.sendall(data)


def tunnel(peer, stream, lines):
    """CONNECT: from here on it echoes."""
    peer.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    while data := stream.read1(65536):
        peer.sendall(data)


def two_answers(peer, stream, lines):
    """One answer too many."""
    body(stream, lines)
    peer.sendall(OK + OK)


def garbage(peer, stream, lines):
    """No answer of HTTP's."""
    body(stream, lines)
    peer.sendall(bytes(range(256)) * 4)
    raise EOFError


def one(raw, context):
    try:
        with context.wrap_socket(raw, server_side=True) as peer:
            stream = peer.makefile("rb")
            while True:
                lines = head(stream)
                print(json.dumps([line.decode("latin-1") for line in lines]), flush=True)
                method, target = lines[0].split(b" ")[:2]
                name = "tunnel" if method == b"CONNECT" else target.split(b"/")[1].decode()
                globals().get(name, plain)(peer, stream, lines)
    except (EOFError, OSError, ValueError) as error:
        print("ended", error, flush=True)


def main():
    address, port, certificate, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    server = listen(address, int(port))
    while True:
        raw, _ = server.accept()
        threading.Thread(target=one, args=(raw, context), daemon=True).start()


if __name__ == "__main__":
    main()
