"""A web server for tests: files of a folder, with byte ranges or without."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@contextmanager
def web_server(
    folder: Path, *, ranges: bool = True, sizes: bool = False, token: str = ""
) -> Iterator[str]:
    """Serve a folder; yields ``host:port``.

    Args:
        folder: what is served.
        ranges: whether the server honours byte ranges and sends sizes.
        sizes: whether it sends sizes without ranges.
        token: query string that every request must have.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

        def _answer(self, *, body: bool) -> None:
            asked = urlsplit(self.path)
            file = folder / unquote(asked.path).lstrip("/")
            if not file.is_file() or asked.query != token:
                self.send_response(403 if file.is_file() else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = file.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if not ranges:
                self.send_response(200)
                header = ("Content-Length", str(len(data))) if sizes else ("Connection", "close")
                self.send_header(*header)
            elif wanted:
                first = int(wanted[1])
                part = data[first : int(wanted[2]) + 1 if wanted[2] else None]
                self.send_response(206)
                self.send_header("Content-Length", str(len(part)))
                last = first + len(part) - 1
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                data = part
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        yield address


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[str]:
    """Run a server in a thread; yields its ``host:port``."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
