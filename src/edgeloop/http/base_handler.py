"""The standard library's handler of one HTTP connection under our rules.

- On loopback it answers only requests that name loopback (loopback.py).
- A request has limits of time and size (request_reader.py), a body a limit of the handler's.
- Every response carries headers that keep a browser from guessing its type, storing it or framing it.

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from edgeloop.errors import one_line
from edgeloop.http.loopback import is_loopback_host, is_loopback_origin
from edgeloop.http.request_reader import RequestReader

if TYPE_CHECKING:
    from edgeloop.http.base_server import BaseServer

REQUEST_S = 15.0  # for a request to begin, for all of it to arrive, and for each piece of its response to leave
PIECE_BYTES = 256 << 10  # of a body
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",  # another release, or a bundle converted again, has the same addresses
}


class BaseHandler(BaseHTTPRequestHandler):
    """One connection, of one request after another. A server's own handler adds `do_GET` and others.

    `requires_host`: refuse a request without Host. Browsers always send it; small clients of a device may not.
    `too_long`: what to do about a body over its limit.
    """

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgeloop", ""
    timeout = REQUEST_S
    disable_nagle_algorithm = True
    response_headers: Mapping[str, str] = SECURITY_HEADERS
    requires_host = True
    too_long = "Send less at a time."
    server: BaseServer

    def setup(self) -> None:
        super().setup()
        self.reader = RequestReader(self.connection, REQUEST_S, lambda: self.server.closing)
        self.rfile = self.reader
        self._kept_bytes = 0

    def handle_one_request(self) -> None:
        self.reader.next_request()
        self.server.waits(self.connection)
        try:
            super().handle_one_request()
        finally:
            self.server.give_memory(self._kept_bytes)
            self._kept_bytes = 0

    def parse_request(self) -> bool:
        """Whether the request is to be answered; if not, it was refused."""
        if not super().parse_request():
            return False
        if self.server.loopback and not self._names_loopback():
            self.refuse(
                403, "Only requests to localhost are accepted. Start with --host ADDRESS to serve other machines."
            )
            return False
        if self.command != "POST":
            self.server.answers(self.connection)
        if self.command != "POST" and ("Content-Length" in self.headers or "Transfer-Encoding" in self.headers):
            self.close_connection = True  # a body that nobody reads would be taken for the next request
        return True

    def read_body(self, limit_bytes: int) -> bytes | None:
        """The request's body; None: it was refused, unread, or the client went away."""
        length = ",".join(self.headers.get_all("Content-Length", []))  # two are as bad as none
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            self.refuse(411, "The request has no Content-Length, or is chunked. Send the body with one Content-Length.")
        elif len(length) > 20 or int(length) > limit_bytes:
            found = f"The request has {length[:20]} bytes; the limit is {limit_bytes}."
            self.refuse(413, f"{found} {self.too_long}")
        else:
            return self._read(int(length))
        return None

    def _read(self, length: int) -> bytes | None:
        """A body of so many bytes. A short one always finds room: long ones must not shut it out."""
        pieces: list[bytes] = []
        while length:
            size = min(length, PIECE_BYTES)
            if pieces and not self._keep(size):
                self.refuse(503, "The requests at hand take all the memory there is for them. Try again later.")
                return None
            piece = self.rfile.read(size)
            if len(piece) < size:
                self.close_connection = True
                return None
            pieces.append(piece)
            length -= size
        self.server.answers(self.connection)
        return b"".join(pieces)

    def _keep(self, size_bytes: int) -> bool:
        fits = self.server.take_memory(size_bytes)
        self._kept_bytes += size_bytes if fits else 0
        return fits

    def respond(self, status: int, content_type: str, body: bytes, **headers: str) -> None:
        """A whole response; `headers` by name, with underscores for hyphens."""
        self.send_head(status, content_type, len(body), **headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_head(self, status: int, content_type: str, size_bytes: int, **headers: str) -> None:
        """Status and headers; the body is written by the caller."""
        self.send_response(status)
        known = {"Content-Type": content_type, "Content-Length": str(size_bytes)}
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {**self.response_headers, **known, **own}.items():
            self.send_header(name, value)
        if self.close_connection or self.server.closing:
            self.send_header("Connection", "close")
        self.end_headers()

    def refuse(self, status: int, reason: str) -> None:
        """Say why, and close the connection: a body that was sent with it is not read."""
        self.close_connection = True
        self.respond(status, *self.error_body(reason))

    @staticmethod
    def error_body(reason: str) -> tuple[str, bytes]:
        """Content type and body of a refusal."""
        return "text/plain; charset=utf-8", f"{reason}\n".encode()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library finds wrong with a request, in our own form."""
        self.request_version = "HTTP/1.1"  # a damaged line counts as HTTP/0.9, whose responses have no status
        self.refuse(int(code), one_line(message or "Bad request", None))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: the terminal belongs to the verb that serves."""

    def _names_loopback(self) -> bool:
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if self.requires_host and not hosts:
            return False
        return all(map(is_loopback_host, hosts)) and all(map(is_loopback_origin, origins))
