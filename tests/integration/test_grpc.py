# SPDX-License-Identifier: Apache-2.0
"""Our gRPC server and client against python3-grpcio, which shares no code with them."""
import os
import pathlib
import signal
import subprocess
import threading
import time
from concurrent import futures

import grpc
import pytest

ECHO = pathlib.Path(os.environ["MC_BIN"]) / "test-grpc_echo"
SECONDS = 20
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def same(data):
    return data


class Server:
    """test-grpc_echo serve."""

    def __init__(self, directory):
        self.path = str(directory / "s")
        self.process = subprocess.Popen([ECHO, "serve", self.path], stdout=subprocess.PIPE, text=True)
        self.expect("ready")

    def expect(self, line):
        assert self.process.stdout.readline().strip() == line

    def channel(self, options=()):
        # Of its own: grpcio shares a connection between channels that look the same.
        return grpc.insecure_channel(
            "unix:" + self.path,
            options=[*UNLIMITED, ("grpc.use_local_subchannel_pool", 1), *options])

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SECONDS) == 0
        self.process.stdout.close()
        assert not os.path.exists(self.path)


@pytest.fixture
def server(tmp_path):
    s = Server(tmp_path)
    try:
        yield s
    finally:
        s.stop()


def unary(channel, method):
    return channel.unary_unary("/test.Echo/" + method, request_serializer=same,
                               response_deserializer=same)


def stream(channel, method):
    return channel.unary_stream("/test.Echo/" + method, request_serializer=same,
                                response_deserializer=same)


def failure(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **options)
    return error.value


def test_unary(server):
    with server.channel() as channel:
        for request in (b"", b"x", bytes(range(256)) * 100):
            assert unary(channel, "Echo")(request, timeout=SECONDS) == request
            assert unary(channel, "Echo")(request) == request


def test_big_message(server):
    with server.channel() as channel:
        big = os.urandom(8 << 20)
        assert unary(channel, "Echo")(big, timeout=SECONDS) == big
        error = failure(unary(channel, "Echo"), bytes((16 << 20) + 1), timeout=SECONDS)
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "16 MiB" in error.details()
        assert unary(channel, "Echo")(b"still there", timeout=SECONDS) == b"still there"


def test_stream_of_10000_messages(server):
    with server.channel() as channel:
        got = list(stream(channel, "Count")(b"10000", timeout=SECONDS))
        assert got == [str(i).encode() for i in range(10000)]
        assert list(stream(channel, "Count")(b"0", timeout=SECONDS)) == []
        error = failure(lambda: list(stream(channel, "Count")(b"x", timeout=SECONDS)))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_deadline(server):
    with server.channel() as channel:
        begin = time.monotonic()
        error = failure(unary(channel, "Hang"), b"", timeout=0.2)
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - begin < 5
        server.expect("hangs")
        server.expect("cancelled")


def test_cancel(server):
    with server.channel() as channel:
        call = unary(channel, "Hang").future(b"")
        server.expect("hangs")
        call.cancel()
        server.expect("cancelled")
        messages = stream(channel, "Count")(b"100000000")
        assert next(messages) == b"0"
        messages.cancel()
        server.expect("cancelled")
        assert unary(channel, "Echo")(b"x", timeout=SECONDS) == b"x"


def test_a_closed_connection_cancels(server):
    channel = server.channel()
    call = stream(channel, "HangStream")(b"")
    server.expect("hangs")
    channel.close()
    server.expect("cancelled")
    assert call.code() == grpc.StatusCode.CANCELLED


def test_unknown_method(server):
    with server.channel() as channel:
        error = failure(unary(channel, "Nope"), b"", timeout=SECONDS)
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "/test.Echo/Nope" in error.details()


@pytest.mark.parametrize("text", ["plain", "100 % Grüße: „日本語“", "two\nlines\r\n", "x" * 2000])
def test_error_text(server, text):
    with server.channel() as channel:
        error = failure(unary(channel, "Fail"), text.encode(), timeout=SECONDS)
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert error.details() == text


def test_compressed_request(server):
    with server.channel() as channel:
        call = channel.unary_unary("/test.Echo/Echo")
        error = failure(call, b"x" * 10000, timeout=SECONDS, compression=grpc.Compression.Gzip)
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("authority", ["/var/lib/kubelet/plugins/x/csi.sock", "%2Fvar%2Flib", "[::",
                                       "a b", "localhost"])
def test_any_authority(server, authority):
    with server.channel([("grpc.default_authority", authority)]) as channel:
        assert unary(channel, "Echo")(b"x", timeout=SECONDS) == b"x"


def test_several_connections(server):
    channels = [server.channel() for _ in range(20)]
    late = [unary(c, "Late").future(b"", timeout=SECONDS) for c in channels]
    for channel in channels:
        assert unary(channel, "Echo")(b"x", timeout=SECONDS) == b"x"
    assert [call.result() for call in late] == [b"late"] * len(late)
    for channel in channels:
        channel.close()


def test_many_calls_at_once(server):
    with server.channel() as channel:
        calls = [unary(channel, "Echo").future(str(i).encode(), timeout=SECONDS) for i in range(2000)]
        assert [c.result() for c in calls] == [str(i).encode() for i in range(2000)]


def test_shutdown_finishes_running_calls(server):
    with server.channel() as channel:
        call = unary(channel, "Late").future(b"", timeout=SECONDS)
        server.expect("late")
        server.process.send_signal(signal.SIGTERM)
        server.expect("stopping")
        assert call.result() == b"late"
        assert server.process.wait(SECONDS) == 0
        error = failure(unary(channel, "Echo"), b"x", timeout=SECONDS)
        assert error.code() == grpc.StatusCode.UNAVAILABLE


# Our client against their server.

class Handlers(grpc.GenericRpcHandler):
    """The methods of test-grpc_echo, in Python."""

    def __init__(self):
        self.cancelled = threading.Event()
        self.seen = {}

    def service(self, details):
        handlers = {"Echo": (grpc.unary_unary_rpc_method_handler, self.echo),
                    "Fail": (grpc.unary_unary_rpc_method_handler, self.fail),
                    "Hang": (grpc.unary_unary_rpc_method_handler, self.hang),
                    "Count": (grpc.unary_stream_rpc_method_handler, self.count)}
        found = handlers.get(details.method.rpartition("/")[2])
        return found and found[0](found[1])

    def echo(self, request, context):
        self.seen["left"] = context.time_remaining()
        return request

    def fail(self, request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, request.decode())

    def hang(self, request, context):
        context.add_callback(self.cancelled.set)
        assert self.cancelled.wait(SECONDS)
        return request

    def count(self, request, context):
        context.add_callback(self.cancelled.set)
        for i in range(int(request)):
            yield str(i).encode()


@pytest.fixture
def theirs(tmp_path):
    handlers = Handlers()
    executor = futures.ThreadPoolExecutor(4)
    server = grpc.server(executor, handlers=[handlers], options=UNLIMITED)
    path = str(tmp_path / "s")
    server.add_insecure_port("unix:" + path)
    server.start()
    try:
        yield path, handlers
    finally:
        server.stop(0).wait(SECONDS)
        executor.shutdown()


def client(path, method, request, timeout_ms=SECONDS * 1000, cancel_after=0):
    done = subprocess.run([ECHO, "call", path, "/test.Echo/" + method, request, str(timeout_ms),
                           str(cancel_after)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.rstrip("\n")


@pytest.mark.parametrize("method,request_text,answer", [
    ("Echo", "hello", "OK messages=1 bytes=5 text="),
    ("Echo", "", "OK messages=1 bytes=0 text="),
    ("Echo", "@8388608", "OK messages=1 bytes=8388608 text="),
    ("Count", "10000", "OK messages=10000 bytes=38890 text="),
    ("Count", "0", "OK messages=0 bytes=0 text="),
    ("Fail", "Grüße 100 %", "NOT_FOUND messages=0 bytes=0 text=Grüße 100 %"),
    ("Nope", "", "UNIMPLEMENTED messages=0 bytes=0 text=Method not found!"),
])
def test_client(theirs, method, request_text, answer):
    path, handlers = theirs
    assert client(path, method, request_text) == answer
    if method == "Echo":
        assert SECONDS - 5 < handlers.seen["left"] <= SECONDS


def test_client_deadline(theirs):
    path, handlers = theirs
    assert client(path, "Hang", "", timeout_ms=200).startswith("DEADLINE_EXCEEDED messages=0")
    assert handlers.cancelled.wait(SECONDS)


def test_client_cancel(theirs):
    path, handlers = theirs
    assert client(path, "Count", "100000000", cancel_after=10) == "cancelled after 10"
    assert handlers.cancelled.wait(SECONDS)


def test_client_too_big_answer(theirs):
    path, _ = theirs
    assert client(path, "Echo", "@16777216").startswith("OK")
    done = subprocess.run([ECHO, "call", path, "/test.Echo/Echo", "@16777217", "1000", "0"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1


def test_client_without_a_server(tmp_path):
    done = subprocess.run([ECHO, "call", tmp_path / "s", "/t/Echo", "", "1000", "0"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr
