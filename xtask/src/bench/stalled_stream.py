"""A stream of HTTP/2 that is not read for a while in the middle of a large answer, and small requests beside it on
the same connection.

Arguments: port, path of the large answer, path of a small one, seconds to stop for. Trusts what SSL_CERT_FILE
names. Prints `phase NAME` when a phase begins, and `value NAME NUMBER` for what it measured: latencies are
medians in milliseconds.
"""

import socket
import ssl
import statistics
import sys
import time

import h2.config
import h2.connection
import h2.events
import h2.settings

PORT, HUGE, SMALL, SECONDS = int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
NAME = "127.0.0.1"
SIZE, WINDOW = 1 << 30, 1 << 20


class Client:
    """One connection. What arrives is acknowledged for the connection at once, and for a stream only while
    `reading` has it."""

    def __init__(self):
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2"])
        self.socket = context.wrap_socket(socket.create_connection((NAME, PORT)), server_hostname=NAME)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.protocol = h2.connection.H2Connection(h2.config.H2Configuration(validate_inbound_headers=False))
        self.protocol.initiate_connection()
        self.protocol.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        self.protocol.increment_flow_control_window(16 * WINDOW)
        self.got, self.owed, self.ended, self.requests = {}, {}, set(), 0
        self.reading = True

    def ask(self, path):
        number = self.protocol.get_next_available_stream_id()
        head = {":method": "GET", ":scheme": "https", ":authority": f"{NAME}:{PORT}", ":path": f"/{path}"}
        self.protocol.send_headers(number, list(head.items()), end_stream=True)
        self.got[number] = self.owed[number] = 0
        self.requests += 1
        return number

    def turn(self):
        """Sends what is to be sent and takes in what arrives next."""
        self.socket.sendall(self.protocol.data_to_send())
        part = self.socket.recv(1 << 18)
        if not part:
            raise EOFError("the connection ended")
        arrived = 0
        for event in self.protocol.receive_data(part):
            if isinstance(event, h2.events.DataReceived):
                length = event.flow_controlled_length
                self.got[event.stream_id] += len(event.data)
                self.owed[event.stream_id] += length
                arrived += length
            elif isinstance(event, h2.events.ResponseReceived):
                if dict(event.headers)[b":status"] != b"200":
                    raise ValueError(f"not answered well: {event.headers}")
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                raise EOFError(repr(event))
        if arrived:
            self.protocol.increment_flow_control_window(arrived)
        self.acknowledge()

    def acknowledge(self):
        for number, owed in self.owed.items() if self.reading else []:
            if owed >= WINDOW // 4 and number not in self.ended:
                self.protocol.increment_flow_control_window(owed, number)
                self.owed[number] = 0

    def small(self, phase, seconds):
        """Small requests one after the other, with a pause between them, for so long."""
        print("phase", phase, flush=True)
        latencies, began = [], time.monotonic()
        while time.monotonic() - began < seconds:
            asked = time.monotonic()
            number = self.ask(SMALL)
            while number not in self.ended:
                self.turn()
            latencies.append(1000 * (time.monotonic() - asked))
            del self.got[number], self.owed[number]
            time.sleep(0.002)
        print("value", f"latency-{phase}", f"{statistics.median(latencies):.3f}", flush=True)
        print("value", f"answered-{phase}", len(latencies), flush=True)


client = Client()
client.small("before", 5)
print("phase reading", flush=True)
large = client.ask(HUGE)
while client.got[large] < SIZE // 2:
    client.turn()
client.reading = False
client.small("stopped", SECONDS)
if client.got[large] > SIZE // 2 + 2 * WINDOW:
    raise ValueError("the stream went on although its window was closed")
print("phase reading", flush=True)
client.reading = True
client.acknowledge()
while large not in client.ended:
    client.turn()
print("phase after", flush=True)
print("value bytes", client.got[large], flush=True)
print("value requests", client.requests, flush=True)
