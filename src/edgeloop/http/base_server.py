"""The standard library's HTTP server under our rules: the page's server and a device's are made of it.

- It listens on loopback unless told otherwise; connections and the memory of their requests are counted.
- What a request may be, and which headers a response carries, says base_handler.py.
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
import time
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from edgeloop.errors import DeviceError
from edgeloop.http.base_handler import BaseHandler
from edgeloop.http.loopback import is_loopback_address
from edgeloop.http.request_reader import POLL_S

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
CONNECTIONS = 64
BODIES_BYTES = 64 << 20  # of all requests that are being read or answered together
FULL_S = 1.0  # for one of them to end before the next is refused: a client that has closed its own may still be counted


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
    scheme = "http"

    def __init__(self, host: str, port: int, handler: type[BaseHandler], port_option: str) -> None:
        host = host.strip("[]")
        self.handler, self.closing = handler, False
        self._open, self._changed = 0, threading.Condition()
        self._idle: dict[socket.socket, float] = {}  # connections whose request has not arrived whole, since when
        self._body_bytes = 0
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
        return f"{self.scheme}://{name}:{self.server_port}"

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

    def waits(self, connection: socket.socket) -> None:
        """Nothing of this connection is being answered: it may be ended where others need its place."""
        with self._changed:
            self._idle.setdefault(connection, time.monotonic())

    def answers(self, connection: socket.socket) -> None:
        """A whole request of this connection has arrived."""
        with self._changed:
            self._idle.pop(connection, None)

    def take_memory(self, size_bytes: int) -> bool:
        """Whether so much more of a request's body may be kept; `give_memory` gives it back."""
        with self._changed:
            fits = self._body_bytes + size_bytes <= BODIES_BYTES
            self._body_bytes += size_bytes if fits else 0
        return fits

    def give_memory(self, size_bytes: int) -> None:
        """A request whose body was kept is answered."""
        with self._changed:
            self._body_bytes -= size_bytes

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            if self._open >= CONNECTIONS:
                self._end_slowest()
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
                self._idle.pop(request, None)
                self._open -= 1
                self._changed.notify_all()

    def _end_slowest(self) -> None:
        """End the connection that has gone longest without a whole request: 64 slow clients must not shut out others.
        It is locked."""
        slowest = min(self._idle, key=lambda one: self._idle[one], default=None)
        if slowest is not None:
            del self._idle[slowest]
            with contextlib.suppress(OSError):  # it has ended by itself
                # of the socket below TLS: ssl's own drops what the thread that reads is using
                socket.socket.shutdown(slowest, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # a client that went away or is too slow is no fault of the server's
        if not isinstance(sys.exc_info()[1], (ConnectionError, socket.timeout)):
            super().handle_error(request, client_address)


def _cannot_listen(host: str, port: int, error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        return f"port {port} on {host} is in use"
    return f"cannot listen on port {port} on {host} ({getattr(error, 'strerror', None) or error})"
