"""An HTTP proxy between a client and a real server that makes a share of the requests fail."""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.web import serving

KINDS = ("503", "reset before", "reset after", "truncated", "stall")
"""Refused; connection reset before or after the server acted (in mid-body if there is one); a body
that ends early; no answer at all."""
_HOP = frozenset(("connection", "keep-alive", "transfer-encoding"))
_REFUSAL = (
    b'<?xml version="1.0"?><Error><Code>ServiceUnavailable</Code>'
    b"<Message>Injected by the test</Message></Error>"
)


@dataclass
class Faults:
    """Which requests fail, and counts of what was injected.

    Attributes:
        share: share of the requests that fail.
        kinds: kinds of faults, taken in turn.
        seed: decides, with method, path and number of earlier equal requests, which ones fail.
        first: whether a request (method, path with query) always fails the first time.
        stall: seconds for which a stalled request gets no answer.
        requests, injected: (method, path) of every request, and (method, path, kind) of the faults.
    """

    share: float = 0.0
    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    first: Callable[[str, str], bool] = lambda method, path: False
    stall: float = 5.0
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    injected: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def draw(self, method: str, path: str) -> str | None:
        """The fault of this request, or None."""
        with self._lock:
            self.requests[method, path] += 1
            times = self.requests[method, path]
            dice = random.Random(f"{self.seed} {method} {path} {times}")
            if dice.random() >= self.share and not (times == 1 and self.first(method, path)):
                return None
            kind = self.kinds[self.injected.total() % len(self.kinds)]
            self.injected[method, path, kind] += 1
            return kind


@contextmanager
def faulty_proxy(upstream: str, faults: Faults) -> Iterator[str]:
    """Run a proxy before ``host:port``; yields its own ``host:port``.

    Headers go through unchanged, Host among them, so that signatures hold.
    """
    handler = type("Handler", (_Handler,), {"upstream": upstream, "faults": faults})
    with serving(_Server(("127.0.0.1", 0), handler)) as address:
        yield address


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a stalled request must not delay the end of the test
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up; that is the point."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: str
    faults: Faults

    def _serve(self) -> None:
        body = self._body()
        kind = self.faults.draw(self.command, self.path)
        if kind == "503":
            self._answer(503, {"Content-Type": "application/xml"}, _REFUSAL)
        elif kind == "stall":
            time.sleep(self.faults.stall)
            self._break(reset=False)
        elif kind == "reset before":
            self._break(reset=True)
        else:
            self._forward(body, kind)

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes, kind: str | None) -> None:
        connection = HTTPConnection(self.upstream, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in (*_HOP, "content-length", "expect"):
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer: HTTPResponse = connection.getresponse()
        data = answer.read()
        headers = dict(answer.headers.items())
        connection.close()
        if kind is None:
            self._answer(answer.status, headers, data)
            return
        if data:
            self._answer(answer.status, headers, data, keep=len(data) // 2)
        self._break(reset=kind == "reset after")

    def _answer(
        self, status: int, headers: dict[str, str], data: bytes, keep: int | None = None
    ) -> None:
        self.send_response_only(status)
        size = headers.get("Content-Length") if self.command == "HEAD" else str(len(data))
        for name, value in headers.items():
            if name.lower() not in (*_HOP, "content-length"):
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", size or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:keep])

    def _break(self, *, reset: bool) -> None:
        self.wfile.flush()
        if reset:  # no time to linger: the kernel sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


for _method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler._serve)
