"""Clients of TLS and HTTP that no library would be: raw_tls.py WHAT [ARGUMENT]. Each says `done` at its end."""

import os
import socket
import ssl
import struct
import sys
import time

HOST = os.environ["PGHOST"]
PORT = int(os.environ["PGPORT"])
NAME = os.environ.get("VLAB_NAME", "mirror.googleapis.com")


def connect():
    sock = socket.create_connection((HOST, PORT), timeout=100)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def secure(alpn="http/1.1"):
    """By the roots that the environment names."""
    context = ssl.create_default_context()
    context.set_alpn_protocols([alpn])
    return context.wrap_socket(connect(), server_hostname=NAME)


def drain(sock):
    """Everything up to the end, however it comes."""
    got = b""
    try:
        while data := sock.recv(65536):
            got += data
    except (ConnectionError, ssl.SSLError):
        pass
    return got


def single_bytes(name):
    """Everything of TLS in single bytes, until the request has been answered."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=NAME)
    sock = connect()

    def flush():
        for byte in outgoing.read():
            sock.sendall(bytes([byte]))
            time.sleep(0.001)

    def step(run):
        while True:
            try:
                result = run()
                flush()
                return result
            except ssl.SSLWantReadError:
                flush()
                incoming.write(sock.recv(65536))

    step(tls.do_handshake)
    request = f"GET /echo/id:{name} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"
    step(lambda: tls.write(request.encode()))
    answer = step(lambda: tls.read(65536))
    assert answer.startswith(b"HTTP/1.1 200"), answer


def endless(_):
    """A ClientHello that says that it has 16 MiB, in records that never end it."""
    sock = connect()
    record = struct.pack("!BHH", 22, 0x0301, 16384)
    try:
        sock.sendall(record + b"\x01\xff\xff\xff\x03\x03" + b"\0" * (16384 - 6))
        for _ in range(2000):
            sock.sendall(record + b"\0" * 16384)
    except OSError as error:
        print("ended", error)
    sock.close()


def smuggle(name):
    """Requests that can be read in two ways: none may go on."""
    head = f"Host: {NAME}\r\n"
    hidden = f"GET /echo/id:{name}-hidden HTTP/1.1\r\n{head}\r\n"
    tries = {
        "both-lengths": f"Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
        "two-lengths": f"Content-Length: 0\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}",
        "not-last": f"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}",
        "obscured": f"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n{hidden}",
        "space-before-colon": f"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}",
        "signed-length": f"Content-Length: +{len(hidden)}\r\n\r\n{hidden}",
        "folded": f"X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n{hidden}",
        "bare-lf": f"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
    }
    for what, rest in tries.items():
        with secure() as sock:
            sock.sendall(f"POST /echo/id:{name}-{what} HTTP/1.1\r\n{head}{rest}".encode())
            sock.settimeout(3)
            try:
                answer = drain(sock)
            except TimeoutError:
                answer = b"nothing"
            print(what, answer[:40], flush=True)


def upgrade(name):
    """Leaves HTTP, and is echoed in whatever it is that it speaks then."""
    with secure() as sock:
        head = f"GET /upgrade/id:{name} HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: lab\r\n\r\n"
        sock.sendall(head.encode())
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        for size in (1, 100, 100_000):
            sock.sendall(b"z" * size)
            got = 0
            while got < size:
                got += len(sock.recv(65536))
            assert got == size, got


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else None)
    print("done", flush=True)
