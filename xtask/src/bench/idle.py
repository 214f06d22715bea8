"""Opens TLS connections, one request on each, and leaves them idle; then one more request on each.

Arguments: protocol by its ALPN name (h2 or http/1.1), port, how many, seconds to be idle for. Trusts what
SSL_CERT_FILE names. Prints `phase NAME` when a phase begins and `value requests NUMBER` at the end.
"""

import resource
import socket
import ssl
import sys
import time

import h2.connection
import h2.events

PROTOCOL, PORT, COUNT, SECONDS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
NAME = "127.0.0.1"


class Http1:
    def __init__(self, stream):
        self.stream = stream

    def ask(self):
        self.stream.sendall(f"GET /small HTTP/1.1\r\nhost: {NAME}:{PORT}\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n{}\n"):
            part = self.stream.recv(4096)
            if not part:
                raise EOFError(f"the connection ended: {answer!r}")
            answer += part
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise ValueError(f"not answered well: {answer!r}")


class Http2:
    def __init__(self, stream):
        self.stream = stream
        self.protocol = h2.connection.H2Connection()
        self.protocol.initiate_connection()

    def ask(self):
        number = self.protocol.get_next_available_stream_id()
        head = {":method": "GET", ":scheme": "https", ":authority": f"{NAME}:{PORT}", ":path": "/small"}
        self.protocol.send_headers(number, list(head.items()), end_stream=True)
        status = ended = None
        while not ended:
            self.stream.sendall(self.protocol.data_to_send())
            part = self.stream.recv(65536)
            if not part:
                raise EOFError("the connection ended")
            for event in self.protocol.receive_data(part):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[b":status"]
                elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    raise EOFError(repr(event))
                ended = ended or isinstance(event, h2.events.StreamEnded)
        self.stream.sendall(self.protocol.data_to_send())
        if status != b"200":
            raise ValueError(f"not answered well: {status}")


def phase(name):
    print("phase", name, flush=True)


most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
context = ssl.create_default_context()
context.set_alpn_protocols([PROTOCOL])

phase("opening")
connections = []
for _ in range(COUNT):
    stream = context.wrap_socket(socket.create_connection((NAME, PORT)), server_hostname=NAME)
    if stream.selected_alpn_protocol() != PROTOCOL:
        raise ValueError(f"the server chose {stream.selected_alpn_protocol()}")
    connections.append(Http2(stream) if PROTOCOL == "h2" else Http1(stream))
    connections[-1].ask()
phase("idle")
time.sleep(SECONDS)
phase("asking")
for connection in connections:
    connection.ask()
phase("after")
print("value requests", 2 * COUNT, flush=True)
