# SPDX-License-Identifier: Apache-2.0
"""A registry of our own that misbehaves as told and remembers every request."""
import base64
import contextlib
import dataclasses
import json
import os
import re
import secrets
import socket
import ssl
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from lib.registry import make_ca
from lib.sandbox import hold_port

# As on a network.  Those of loopback, 64 KiB, are larger than a small send buffer: none is ever full, so the client's kernel
# waits 40 ms before it acknowledges, and with it whoever writes.
SEGMENT = 1448


@dataclasses.dataclass
class Fault:
    """What happens to requests whose path matches the regular expression `path`, the first `times` of them.

    kind: "status"   answers `status` with `body` and `headers`
          "corrupt"  flips one bit of the body (at `after`)
          "size"     serves `delta` bytes more (zeros) or fewer, with a Content-Length that agrees
          "truncate" promises all, sends `after` bytes, closes
          "reset"    the same, but resets the connection
          "stall"    the same, but then sends nothing for `seconds`
          "delay"    waits `seconds`, or until `gate` is set, then answers well
          "redirect" 307 to `location` ("{path}" in it becomes the path)
          "garbage"  sends `body` instead of an HTTP answer
          "headers"  answers well, with `headers` added or (value None) left out
          "ignore"   answers as if there were no Range
          "slow"     answers well, with `rate` bytes a second
    `places` are bytes of the content: an answer that reaches one of them ends there ("truncate", "reset", "stall",
    instead of `after`), once a place.  `each`: once for each first byte that is asked for.  `least`: only what asks for
    a first byte of at least that.  A header's value may be a function that gives it.
    """
    path: str
    kind: str
    times: int = 1 << 30
    skip: int = 0  # well-answered matches before the first fault
    ranged: bool = None  # only requests with a Range header (True), or without (False)
    places: set = None
    each: bool = False
    least: int = 0
    hit: set = dataclasses.field(default_factory=set)  # what `each` has had
    method: str = "GET"
    status: int = 500
    body: bytes = b""
    headers: dict = dataclasses.field(default_factory=dict)
    after: int = 0
    delta: int = 0
    rate: int = 0
    seconds: float = 3600.0
    location: str = ""
    gate: threading.Event = None

    def takes(self, method, path, span):
        """Is it for this request?  span: (first byte, end or None) of its Range header, or None."""
        begin, end = span or (0, None)
        if self.times <= 0 or self.method != method or not re.search(self.path, path):
            return False
        if self.ranged not in (None, span is not None) or begin < self.least or (
                self.each and begin in self.hit):
            return False
        return self.places is None or any(begin <= p and (end is None or p < end) for p in self.places)

    def taken(self, span):
        """It is; returns it, with `after` of this answer."""
        begin, end = span or (0, None)
        if self.each:
            self.hit.add(begin)
        if self.places is None:
            return self
        place = min(p for p in self.places if begin <= p and (end is None or p < end))
        self.places.remove(place)
        return dataclasses.replace(self, after=place - begin)


@dataclasses.dataclass
class Request:
    """One request as it came; `sent` is the number of body bytes that went out, `fault` the kind of Fault that it met."""
    method: str
    path: str
    headers: dict  # names in lower case
    time: float
    body: bytes = b""
    status: int = 0
    sent: int = 0
    port: int = 0  # the client's: tells connections apart
    ended: float = 0.0
    fault: str = ""


class FaultyRegistry:
    """Options (all can be changed while it runs):
    users: {name: password}; auth: None, "basic" or "bearer" (tokens come from /token of this server or of
    `realm`); anonymous: a token without a user is good for pulling; token_seconds: validity, token_uses: how
    many requests a token is good for; ranges: Range is honoured; rate: bytes/s of a blob's
    body; latency: seconds before each answer about a blob; etag: of all blobs, honoured in If-Range.
    send_buffer: of each connection, in bytes; the smaller, the nearer `sent` is to what went over the wire."""

    def __init__(self, folder=None, tls=False, users=None, auth=None, send_buffer=0):
        self.manifests, self.blobs, self.faults, self.requests = {}, {}, [], []
        self.users, self.auth, self.anonymous, self.realm = users or {}, auth, False, None
        self.tokens, self.token_seconds, self.token_uses = {}, 300, 1 << 30
        self.ranges, self.rate, self.latency, self.etag = True, 0, 0, None
        self.send_buffer = send_buffer
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.connections, self.tls, self.ca_file = set(), None, None
        if tls:
            self.ca_file = make_ca(folder)
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(f"{folder}/server.pem", f"{folder}/server.key")
        self.scheme = "https" if tls else "http"
        self.held = None
        self._listen(0)
        self.port = self.server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"

    def _listen(self, port):
        if self.held:
            self.held.close()
        self.server = Server(("127.0.0.1", port), Handler)
        self.server.registry = self
        if self.send_buffer:
            self.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer)
            self.server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        if self.tls:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True,
                                                      do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def _close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def stop(self):
        self.stopping.set()
        self._close()

    def cut(self):
        """As when its process ends: the port is closed, and so are all connections.  mend() is its next start."""
        self._close()
        self.held = hold_port(self.port)
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def mend(self):
        self._listen(self.port)

    def add(self, artifact, repository, tag="latest"):
        """Serves a lib.artifacts.Artifact; returns the reference."""
        for child in artifact.children:
            self.add(child, repository, None)
        for blob in artifact.blobs:
            self.add_blob(repository, blob)
        self.add_manifest(repository, tag, artifact.manifest, artifact.media_type, artifact.digest)
        return f"{self.host}/{repository}:{tag}" if tag else f"{self.host}/{repository}@{artifact.digest}"

    def add_blob(self, repository, blob, digest=None):
        """Serves a blob, under another digest than its own when given one."""
        self.blobs[repository, digest or blob.digest] = blob

    def add_manifest(self, repository, tag, data, media_type, digest=None):
        """Serves any bytes as a manifest, under a tag, a digest or both."""
        for name in (tag, digest):
            if name:
                self.manifests[repository, name] = (data, media_type)

    def fault(self, path, kind, **options):
        """Adds a Fault and returns it; the first that matches counts."""
        fault = Fault(path, kind, **options)
        with self.lock:
            self.faults.append(fault)
        return fault

    def clear_faults(self):
        with self.lock:
            self.faults.clear()

    def take_fault(self, method, path, span=None):
        with self.lock:
            for fault in self.faults:
                if fault.takes(method, path, span):
                    if fault.skip > 0:
                        fault.skip -= 1
                        return None
                    fault.times -= 1
                    return fault.taken(span)
        return None

    def seen(self, path="", method="GET"):
        """The requests so far whose path matches the regular expression."""
        with self.lock:
            return [r for r in self.requests if r.method == method and re.search(path, r.path)]

    def blob_gets(self):
        return len(self.seen("/blobs/sha256:"))

    def config(self):
        """This registry as an entry of the daemon's `registries`."""
        if self.ca_file:
            return {"host": self.host, "ca_file": self.ca_file}
        return {"host": self.host, "plain_http": True}

    def issue_token(self, user):
        token = secrets.token_urlsafe(24)
        with self.lock:
            self.tokens[token] = [user, time.monotonic() + self.token_seconds, self.token_uses]
        return token

    def token_good(self, token):
        with self.lock:
            entry = self.tokens.get(token)
            if not entry or entry[1] < time.monotonic() or entry[2] <= 0:
                return False
            entry[2] -= 1
            return entry[0] is not None or self.anonymous

    def user_of(self, header):
        """The user of a Basic header; None when it is not good."""
        match = re.fullmatch(r"(?i:basic) (\S+)", header or "")
        if not match:
            return None
        user, _, password = base64.b64decode(match[1]).decode(errors="replace").partition(":")
        return user if self.users.get(user) == password and user in self.users else None


class Server(ThreadingHTTPServer):
    """Quiet about clients that go away."""
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    registry: FaultyRegistry

    def handle_error(self, request, client_address):
        pass


class Handler(BaseHTTPRequestHandler):
    """One connection."""
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self):
        super().setup()
        self.server.registry.connections.add(self.connection)

    def finish(self):
        self.server.registry.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.serve()

    def do_HEAD(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def serve(self):
        self.request_record = None
        try:
            self.serve_one()
        finally:
            if self.request_record:
                self.request_record.ended = time.monotonic()

    def serve_one(self):
        registry = self.server.registry
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.request_record = Request(self.command, self.path, {k.lower(): v for k, v in
                                                                self.headers.items()},
                                      time.monotonic(), body, port=self.client_address[1])
        with registry.lock:
            registry.requests.append(self.request_record)
        fault = registry.take_fault(self.command, self.path, self.span())
        self.request_record.fault = fault.kind if fault else ""
        if fault and fault.kind == "delay":
            (fault.gate or registry.stopping).wait(fault.seconds)
            fault = None
        if fault and self.simple_fault(fault):
            return
        path = urlsplit(self.path).path
        if path == "/token":
            self.token(body, fault)
        elif not self.authorised():
            self.challenge()
        else:
            self.content(path, fault)

    def simple_fault(self, fault):
        """Faults that do not look at the content."""
        if fault.kind == "status":
            self.answer(fault.status, fault.body, fault.headers)
        elif fault.kind == "redirect":
            self.answer(fault.status if fault.status // 100 == 3 else 307, b"",
                        {"Location": fault.location.replace("{path}", self.path), **fault.headers})
        elif fault.kind == "garbage":
            self.close_connection = True
            self.wfile.write(fault.body)
        else:
            return False
        return True

    def answer(self, status, body=b"", headers=None):
        self.request_record.status = status
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value() if callable(value) else value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.request_record.sent += len(body)

    def error(self, status, code, headers=None):
        body = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]})
        self.answer(status, body.encode(), headers)

    def authorised(self):
        registry, header = self.server.registry, self.headers.get("Authorization")
        if registry.auth == "basic":
            return registry.user_of(header) is not None
        if registry.auth == "bearer":
            match = re.fullmatch(r"(?i:bearer) (\S+)", header or "")
            return bool(match) and registry.token_good(match[1])
        return True

    def challenge(self):
        registry = self.server.registry
        if registry.auth == "basic":
            value = 'Basic realm="test"'
        else:
            realm = registry.realm or f"{registry.scheme}://{registry.host}/token"
            match = re.match(r"/v2/(.+)/(?:manifests|blobs)/", self.path)
            scope = f',scope="repository:{match[1]}:pull"' if match else ""
            value = f'Bearer realm="{realm}",service="test"{scope}'
        self.error(401, "UNAUTHORIZED", {"WWW-Authenticate": value})

    def token(self, body, fault):
        """GET with Basic, or POST as OAuth2 does."""
        registry, header, user = self.server.registry, self.headers.get("Authorization"), None
        form = {k: v[0] for k, v in parse_qs(body.decode(errors="replace")).items()}
        given = header is not None or "username" in form
        if form.get("username") in registry.users and registry.users[form["username"]] == form.get("password"):
            user = form["username"]
        user = user or registry.user_of(header)
        if given and user is None:
            self.error(401, "UNAUTHORIZED")
            return
        token = registry.issue_token(user)
        reply = {"token": token, "access_token": token, "expires_in": registry.token_seconds}
        data = json.dumps(reply).encode()
        self.body(len(data), lambda: iter([data]), {"Content-Type": "application/json"}, fault)

    def content(self, path, fault):
        registry = self.server.registry
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        if path in ("/v2/", "/v2"):
            self.answer(200, b"{}", {"Docker-Distribution-API-Version": "registry/2.0"})
        elif match and match[2] == "manifests" and (match[1], match[3]) in registry.manifests:
            data, media_type = registry.manifests[match[1], match[3]]
            self.body(len(data), lambda: iter([data]), {"Content-Type": media_type}, fault)
        elif match and match[2] == "blobs" and (match[1], match[3]) in registry.blobs:
            blob = registry.blobs[match[1], match[3]]
            self.body(blob.size, blob.chunks, {"Content-Type": "application/octet-stream",
                                               "Docker-Content-Digest": match[3]}, fault, True)
        elif match:
            self.error(404, "MANIFEST_UNKNOWN" if match[2] == "manifests" else "BLOB_UNKNOWN")
        else:
            self.error(404, "UNSUPPORTED")

    def span(self):
        """(first byte, end or None) of the Range header; None without one."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        return (int(match[1]), int(match[2]) + 1 if match[2] else None) if match else None

    def range(self, size):
        """(start, end) of a Range header that we honour, else None."""
        span, registry, wish = self.span(), self.server.registry, self.headers.get("If-Range")
        if not span or not registry.ranges or (wish and wish != registry.etag):
            return None
        return span[0], min(span[1] or size, size)

    def body(self, size, chunks, headers, fault, is_blob=False):
        start, end, status = 0, size, 200
        if is_blob:
            self.server.registry.stopping.wait(self.server.registry.latency)
            headers["ETag"] = self.server.registry.etag
        wanted = self.range(size) if is_blob and not (fault and fault.kind == "ignore") else None
        if wanted:
            start, end = wanted
            if start >= end:
                self.answer(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{size}"
        delta = fault.delta if fault and fault.kind == "size" else 0
        self.request_record.status = status
        self.send_response(status)
        headers["Content-Length"] = str(max(end - start + delta, 0))
        for name, value in {**headers, **(fault.headers if fault else {})}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(cut(chunks(), start, end + min(delta, 0)), fault, is_blob)
            if delta > 0:
                self.wfile.write(bytes(delta))

    def send_body(self, chunks, fault, is_blob):
        kind = fault.kind if fault else None
        limit = fault.after if kind in ("truncate", "reset", "stall") else None
        record = self.request_record

        def rate():
            return fault.rate if kind == "slow" else self.server.registry.rate if is_blob else 0

        for chunk in chunks:
            if kind == "corrupt" and record.sent <= fault.after < record.sent + len(chunk):
                at = fault.after - record.sent
                chunk = chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1:]
            for piece in pieces(chunk, 64 * 1024 if rate() or self.server.registry.send_buffer else len(chunk)):
                if limit is not None and record.sent + len(piece) >= limit:
                    self.wfile.write(piece[:limit - record.sent])
                    record.sent = limit
                    self.break_off(fault)
                    return
                self.wfile.write(piece)
                record.sent += len(piece)
                if pace := rate():  # the test may change it
                    self.server.registry.stopping.wait(len(piece) / pace)

    def break_off(self, fault):
        self.wfile.flush()
        self.close_connection = True
        if fault.kind == "stall":
            self.server.registry.stopping.wait(fault.seconds)
        elif fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # at once: socketserver would end the stream in order


def pieces(chunk, size):
    for start in range(0, len(chunk), size):
        yield chunk[start:start + size]


def cut(chunks, start, end):
    """The bytes [start, end) of the chunks."""
    at = 0
    for chunk in chunks:
        if at >= end:
            return
        if at + len(chunk) > start:
            yield chunk[max(start - at, 0):end - at]
        at += len(chunk)
