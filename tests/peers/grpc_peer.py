"""A gRPC service of the lab's, behind TLS: grpc_peer.py ADDRESS PORT CERTIFICATE KEY.

Messages are bytes. Each call is one line of JSON on standard output when it ends.
"""

import json
import sys
import threading
from concurrent import futures

import grpc


def log(method, context, received, ended):
    metadata = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
    line = {
        "method": method,
        "peer": context.peer(),
        "received": [message.decode() for message in received],
        "params": metadata.get("x-goog-request-params", ""),
        "replaced": metadata.get("x-lab-replaced", ""),
        "authorized": "authorization" in metadata,
        "ended": ended,
    }
    print(json.dumps(line), flush=True)


def unary(request, context):
    context.set_trailing_metadata((("x-lab-trailer", "at the end"), ("x-lab-bin", b"\x00\xff")))
    log("Unary", context, [request], "ok")
    return b"got " + request


def server_stream(request, context):
    count = int(request.split()[0])
    for number in range(count):
        yield b"part %d" % number
    log("ServerStream", context, [request], "ok")


def client_stream(requests, context):
    received = list(requests)
    log("ClientStream", context, received, "ok")
    return b"got %d" % len(received)


def bidi(requests, context):
    received = []
    for request in requests:
        received.append(request)
        yield b"echo " + request
    log("Bidi", context, received, "ok")


def fail(request, context):
    """Says no without a message: a trailers-only answer."""
    log("Fail", context, [request], "failed precondition")
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the lab's service says no")


def fail_late(request, context):
    """Says no after a message."""
    yield b"part 0"
    log("FailLate", context, [request], "data loss")
    context.abort(grpc.StatusCode.DATA_LOSS, "the rest is lost")


def wait(request, context):
    """Never answers."""
    done = threading.Event()
    context.add_callback(done.set)
    done.wait(60)
    log("Wait", context, [request], "cancelled")
    return b""


def main():
    address, port, certificate, key = sys.argv[1:]
    with open(certificate, "rb") as file:
        chain = file.read()
    with open(key, "rb") as file:
        private = file.read()
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=150))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.v1.Echo", methods),))
    credentials = grpc.ssl_server_credentials([(private, chain)])
    assert server.add_secure_port(f"{address}:{port}", credentials)
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
