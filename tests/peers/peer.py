"""Servers that are not PostgreSQL, or behave as it never would: peer.py WHAT ADDRESS PORT [ARGUMENT]."""

import http.server
import os
import re
import resource
import selectors
import signal
import socket
import ssl
import struct
import sys
import threading
import time

from pgpeer import ONE_ROW, READY, listen, message, messages, startup


def witness(peer, target):
    """Kills the process upon the last byte of a command, and only then says what it got."""
    startup(peer)
    for kind, payload in messages(peer):
        if kind == b"Q" and b"lab:kill" in payload:
            with open(target) as file:
                os.kill(int(file.read()), signal.SIGKILL)
            print("killed upon", payload.hex(), flush=True)
        elif kind == b"Q":
            peer.sendall(ONE_ROW + READY)


def eager(peer, _):
    """Answers before it was asked."""
    startup(peer)
    peer.sendall(ONE_ROW + READY)
    for kind, _ in messages(peer):
        if kind == b"Q":
            peer.sendall(ONE_ROW + READY)


def drip(peer, _):
    """Answers one byte at a time."""
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    startup(peer)
    for kind, _ in messages(peer):
        if kind == b"Q":
            for byte in ONE_ROW + READY:
                peer.sendall(bytes([byte]))
                time.sleep(0.002)


def truncate(peer, _):
    """Ends the connection in the middle of an answer."""
    startup(peer)
    for kind, _ in messages(peer):
        if kind == b"Q":
            peer.sendall(ONE_ROW[:-7])
            return


def reset(peer, _):
    """Resets the connection in the middle of an answer."""
    startup(peer)
    for kind, _ in messages(peer):
        if kind == b"Q":
            peer.sendall(ONE_ROW[:-7])
            time.sleep(0.1)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return


def garbage(peer, _):
    """Answers with bytes that are no protocol."""
    startup(peer)
    for kind, _ in messages(peer):
        if kind == b"Q":
            peer.sendall(bytes(range(256)) * 16)
            return


def huge(peer, _):
    """Announces a message longer than any that there can be."""
    startup(peer)
    for kind, _ in messages(peer):
        if kind == b"Q":
            peer.sendall(b"D" + struct.pack("!I", 0xFFFFFFF0) + b"x" * 1000)
            return


def banner(peer, _):
    """Speaks first, as SMTP and MySQL do, then echoes."""
    peer.sendall(b"220 lab ready\r\n")
    while data := peer.recv(65536):
        peer.sendall(data)


def echo(peer, _):
    """Says nothing by itself."""
    while data := peer.recv(65536):
        peer.sendall(data)


def mute(address, port):
    """Takes any number of connections, never says anything, and counts them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = listen(address, port)
    watched = selectors.DefaultSelector()
    watched.register(server, selectors.EVENT_READ)
    total = 0
    while True:
        for key, _ in watched.select():
            if key.fileobj is server:
                peer, _ = server.accept()
                watched.register(peer, selectors.EVENT_READ)
                total += 1
                if total % 500 == 0:
                    print("total", total, flush=True)
                continue
            try:
                if key.fileobj.recv(65536):
                    continue
            except ConnectionError:
                pass
            watched.unregister(key.fileobj)
            key.fileobj.close()


def half_close(peer, _):
    """Closes its side of the connection at once, and counts what still comes."""
    peer.sendall(b"220 and good night\r\n")
    peer.shutdown(socket.SHUT_WR)
    count = 0
    while data := peer.recv(65536):
        count += len(data)
    print("counted", count, flush=True)


def flood(peer, _):
    """A result of so many rows of 8 KiB as the statement says; anything else is answered with one row."""
    startup(peer)
    row = message(b"D", b"\0\1" + struct.pack("!I", 8190) + b"x" * 8190)
    for kind, payload in messages(peer):
        rows = re.search(rb"lab:flood=(\d+)", payload) if kind == b"Q" else None
        if rows:
            count = int(rows[1])
            peer.sendall(ONE_ROW[: ONE_ROW.index(b"D\0\0")])
            for _ in range(count // 16):
                peer.sendall(row * 16)
            peer.sendall(message(b"C", b"SELECT %d\0" % count) + READY)
        elif kind == b"Q":
            peer.sendall(ONE_ROW + READY)


def tls(peer, certificate):
    """TLS with a certificate, then one line back."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    try:
        with context.wrap_socket(peer, server_side=True) as secure:
            secure.sendall(b"secret " + secure.recv(1024))
    except (ssl.SSLError, ConnectionError):
        pass


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"a page of the lab\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    what, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    argument = sys.argv[4] if len(sys.argv) > 4 else None
    if what == "http":
        server = http.server.ThreadingHTTPServer((address, port), Page)
        print("listening", flush=True)
        server.serve_forever()
    if what == "mute":
        mute(address, port)
    serve = globals()[what]

    def one(peer):
        with peer:
            try:
                serve(peer, argument)
            except (EOFError, ConnectionError):
                pass

    server = listen(address, port)
    while True:
        peer, _ = server.accept()
        threading.Thread(target=one, args=(peer,), daemon=True).start()


if __name__ == "__main__":
    main()
