"""grpcio against the lab's service: grpc_calls.py WHAT. The channel finds its roots by its environment."""

import sys
import threading

import grpc

from vlab import new, say

PATH = "/lab.v1.Echo/"
CHANNEL = grpc.secure_channel("echo.googleapis.com:443", grpc.ssl_channel_credentials())


def metadata(name, *more):
    return (("x-goog-request-params", f"resource=lab/id:{new(name)}"), ("authorization", "Bearer secret"), *more)


def unary(method, request, name, *more, **options):
    call = CHANNEL.unary_unary(PATH + method)
    return call.with_call(request, metadata=metadata(name, *more), timeout=100, **options)


def expect(code, run):
    try:
        run()
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError(f"no {code}")


def all():
    """Each kind of call once."""
    answer, call = unary("Unary", b"hello", "unary")
    assert answer == b"got hello", answer
    trailing = dict(call.trailing_metadata())
    assert trailing["x-lab-trailer"] == "at the end" and trailing["x-lab-bin"] == b"\x00\xff", trailing
    large = b"x" * 1_000_000
    assert unary("Unary", large, "large")[0] == b"got " + large
    answers = CHANNEL.unary_stream(PATH + "ServerStream")(b"100", metadata=metadata("stream"))
    assert [*answers] == [b"part %d" % number for number in range(100)]
    requests = (b"%d" % number for number in range(50))
    assert CHANNEL.stream_unary(PATH + "ClientStream")(requests, metadata=metadata("client")) == b"got 50"
    bidi()
    error = expect(grpc.StatusCode.FAILED_PRECONDITION, lambda: unary("Fail", b"x", "fail"))
    assert error.details() == "the lab's service says no", error
    late = CHANNEL.unary_stream(PATH + "FailLate")(b"x", metadata=metadata("late"))
    assert next(late) == b"part 0"
    expect(grpc.StatusCode.DATA_LOSS, lambda: next(late))
    expect(grpc.StatusCode.UNIMPLEMENTED, lambda: unary("Nothing", b"x", "nothing"))


def bidi():
    """Each message is answered before the next one is sent."""
    answered = threading.Semaphore(0)

    def requests():
        for number in range(20):
            yield b"%d" % number
            answered.acquire()

    received = []
    for answer in CHANNEL.stream_stream(PATH + "Bidi")(requests(), metadata=metadata("bidi")):
        received.append(answer)
        answered.release()
    assert received == [b"echo %d" % number for number in range(20)], received


def denied():
    """PERMISSION_DENIED, in trailers only; the channel goes on."""
    call = CHANNEL.unary_unary(PATH + "Unary")
    params = (("x-goog-request-params", f"resource=lab:deny/id:{new('denied')}"),)
    error = expect(grpc.StatusCode.PERMISSION_DENIED, lambda: call(b"x", metadata=params, timeout=100))
    assert "the lab says no" in error.details(), error
    assert unary("Unary", b"y", "after")[0] == b"got y"


def misdirected():
    """TLS for one name, calls for another: refused in trailers only, once; a channel without that goes on."""
    options = (
        ("grpc.default_authority", "storage.googleapis.com"),
        ("grpc.ssl_target_name_override", "echo.googleapis.com"),
    )
    other = grpc.secure_channel("echo.googleapis.com:443", grpc.ssl_channel_credentials(), options)
    for kind, ask in (("unary", other.unary_unary), ("stream", other.unary_stream), ("bidi", other.stream_stream)):
        request = iter([b"x"]) if kind == "bidi" else b"x"
        method = {"unary": "Unary", "stream": "ServerStream", "bidi": "Bidi"}[kind]

        def run():
            answer = ask(PATH + method)(request, metadata=metadata(f"other-{kind}"), timeout=100)
            return answer if kind == "unary" else [*answer]

        error = expect(grpc.StatusCode.FAILED_PRECONDITION, run)
        assert "another host" in error.details(), error
    assert unary("Unary", b"y", "after")[0] == b"got y"


def cancelled():
    """The client gives a call up."""
    call = CHANNEL.unary_unary(PATH + "Wait").future(b"x", metadata=metadata("wait"), timeout=100)
    sys.stdin.readline()
    call.cancel()
    assert unary("Unary", b"y", "after")[0] == b"got y"


globals()[sys.argv[1]]()
say("done")
