"""The standard library's HTTP server under our rules: the page's server and a device's are made of it.

- It listens on loopback unless told otherwise, and answers there only requests that name loopback (loopback.py).
- A request has limits of time and size (request_reader.py), a body a limit of the handler's; connections are counted.
- Every response carries headers that keep a browser from guessing its type, storing it or framing it.
- `close` waits for requests that have begun, and no longer than it is told.

A connection has a thread, so that a slow client holds up nobody. Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from edgeloop.errors import DeviceError, one_line
from edgeloop.http.loopback import is_loopback_address, is_loopback_host, is_loopback_origin
from edgeloop.http.request_reader import POLL_S, RequestReader

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
REQUEST_S = 15.0  # for a request to begin, for all of it to arrive, and for each piece of its response to leave
CONNECTIONS = 64
FULL_S = 1.0  # for one of them to end before the next is refused: a client that has closed its own may still be counted
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",  # another release, or a bundle converted again, has the same addresses
}


class BaseServer(ThreadingHTTPServer):
    """Listens when made; `start` answers in a thread, `close` ends it.

    Args:
        host: Address or name to listen on; an IPv6 address with or without brackets.
        port: 0: any that is free.
        port_option: The option of the command line that chooses the port, for the error message.

    Raises:
        DeviceError: The port is in use or forbidden, or the machine has no such address.
    """

    daemon_threads = True
    block_on_close = False  # `close` waits, with a limit
    request_queue_size = CONNECTIONS

    def __init__(self, host: str, port: int, handler: type[BaseHandler], port_option: str) -> None:
        host = host.strip("[]")
        self.handler, self.closing = handler, False
        self._open, self._changed = 0, threading.Condition()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), handler)
        except (OSError, OverflowError) as e:
            raise DeviceError(
                _cannot_listen(host, port, e), advice=f"Choose another with {port_option}, or 0 for any that is free."
            ) from e
        log.info("listening on %s", self.url)
        self.loopback = is_loopback_address(str(self.server_address[0]))

    def server_bind(self) -> None:
        """Without the standard library's look-up of this machine's full name, which may wait for a DNS server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        name = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{name}:{self.server_port}"

    def start(self) -> None:
        """Answer, in a thread of its own."""
        threading.Thread(target=self.serve_forever, args=(POLL_S / 4,), daemon=True).start()

    def close(self, timeout_s: float) -> None:
        """Take no more connections; every request that has begun is answered, for `timeout_s` at most. Once."""
        if self.closing:
            return
        self.closing = True
        self.shutdown()
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN)
        while waiting.poll(0):  # connected before the end, and not accepted yet
            self._handle_request_noblock()  # type: ignore[attr-defined]
        self.server_close()
        with self._changed:
            self._changed.wait_for(lambda: self._open == 0, timeout_s)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            free = self._changed.wait_for(lambda: self._open < CONNECTIONS, FULL_S)
            self._open += 1 if free else 0
        if free:
            super().process_request(request, client_address)
            return
        content_type, body = self.handler.error_body(f"{CONNECTIONS} connections are open. Try again later.")
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
        with contextlib.suppress(OSError):  # the client is already gone
            request.settimeout(0.1)
            request.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # a client that went away or is too slow is no fault of the server's
        if not isinstance(sys.exc_info()[1], (ConnectionError, socket.timeout)):
            super().handle_error(request, client_address)


class BaseHandler(BaseHTTPRequestHandler):
    """One connection, of one request after another. A server's own handler adds `do_GET` and others.

    `requires_host`: refuse a request without Host. Browsers always send it; small clients of a device may not.
    """

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgeloop", ""
    timeout = REQUEST_S
    disable_nagle_algorithm = True
    response_headers: Mapping[str, str] = SECURITY_HEADERS
    requires_host = True
    server: BaseServer

    def setup(self) -> None:
        super().setup()
        self.reader = RequestReader(self.connection, REQUEST_S, lambda: self.server.closing)
        self.rfile = self.reader

    def handle_one_request(self) -> None:
        self.reader.next_request()
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Whether the request is to be answered; if not, it was refused."""
        if not super().parse_request():
            return False
        if self.server.loopback and not self._names_loopback():
            self.refuse(
                403, "Only requests to localhost are accepted. Start with --host ADDRESS to serve other machines."
            )
            return False
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
            self.refuse(413, f"{found} Send fewer samples at a time.")
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                return body
            self.close_connection = True
        return None

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


def _cannot_listen(host: str, port: int, error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        return f"port {port} on {host} is in use"
    return f"cannot listen on port {port} on {host} ({getattr(error, 'strerror', None) or error})"
