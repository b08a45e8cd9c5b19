"""The bytes of a connection, with a time and a size limit for each request. Python 3.9 syntax, the standard library.

A socket's own timeout starts again with every byte: a client that sends one now and then would hold its thread for
ever. Here the limit is of the whole request.
"""

from __future__ import annotations

import io
import select
import socket
import time
from collections.abc import Callable
from http.client import LineTooLong
from typing import Any

POLL_S = 0.2  # how often a connection without a request looks whether the server is closing
HEAD_LIMIT_BYTES = 64 << 10


class RequestReader(io.BufferedReader):
    """What `BaseHTTPRequestHandler` reads from (`rfile`).

    Args:
        timeout_s: For a request to begin, and then for all of it to arrive.
        closing: Whether a connection that has not begun a request is to end.
    """

    def __init__(self, connection: socket.socket, timeout_s: float, closing: Callable[[], bool]) -> None:
        self._bytes = _TimedBytes(connection, timeout_s, closing)
        super().__init__(self._bytes, 64 << 10)
        self.next_request()

    def next_request(self) -> None:
        """What is read from now on is another request."""
        self._bytes.restart()
        self._head_bytes = -1

    def readline(self, size: int | None = -1) -> bytes:
        """A line of the head. Raises `LineTooLong`, which the standard library answers with 431."""
        line = super().readline(size)
        if self._head_bytes < 0:  # the request line, which the standard library limits itself
            self._head_bytes = 0
        else:
            self._head_bytes += len(line)
        if self._head_bytes > HEAD_LIMIT_BYTES:
            raise LineTooLong("head")
        return line


class _TimedBytes(io.RawIOBase):
    def __init__(self, connection: socket.socket, timeout_s: float, closing: Callable[[], bool]) -> None:
        self._connection, self._timeout_s, self._closing = connection, timeout_s, closing
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self.restart()

    def restart(self) -> None:
        self._begun, self._deadline = False, time.monotonic() + self._timeout_s

    def readable(self) -> bool:
        return True

    def _decrypted_bytes(self) -> int:
        """What TLS holds already: `poll` does not see it."""
        return self._connection.pending() if hasattr(self._connection, "pending") else 0

    def readinto(self, buffer: Any) -> int:
        while True:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                raise socket.timeout("the request did not arrive in time")  # in Python 3.9 no TimeoutError
            if self._decrypted_bytes() or self._readable.poll(1e3 * min(left_s, POLL_S)):
                if not self._begun:
                    self._begun, self._deadline = True, time.monotonic() + self._timeout_s
                return self._connection.recv_into(buffer)
            if self._closing() and not self._begun:
                return 0
