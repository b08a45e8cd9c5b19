"""A registry on a web server as a source: plain GET requests, which any server of static files answers.

A poll that finds nothing new is one conditional request (RFC 9110, 13). An interrupted file goes on where it ended by a
range (RFC 9110, 14); from a server without ranges what is here already is read again and dropped. The proxies of the
environment are used. Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import re
import ssl
import time
import urllib.request
from collections.abc import Hashable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

from edgeloop.edge.on_device.pull.http_opener import http_opener
from edgeloop.errors import DataError, DeviceError, IntegrityError, one_line
from edgeloop.registry.versions.version_index import INDEX, LIMIT_BYTES

TIMEOUT_S = 20.0  # without a byte
SMALL_S, PIECE_S = 120.0, 600.0  # for a small file, and for a piece of a large one
BLOCK_BYTES = 64 << 10
SETTLED_S = 2.0  # between a change and an answer whose date tells it from the next change
CHECK = "Check the URL, the server and the network."
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class HttpSource:
    """As `ReleaseSource`, for the folder of a model at the URL `base`.

    `root_certificate`: a file of PEM certificates that sign the server's; empty: those that the system trusts.

    Raises:
        DataError: That file holds no certificate.
    """

    def __init__(self, base: str, root_certificate: str = "") -> None:
        self.base = base
        self.retry_after_s: float | None = None
        try:
            trusted = ssl.create_default_context(cafile=root_certificate or None)
        except OSError as e:  # ssl's errors are OSErrors
            raise DataError(
                f"{root_certificate} cannot be read as certificates ({e.strerror or e})", advice="Expected a PEM file."
            ) from e
        self.opener = http_opener(trusted)

    def index(self, seen: Hashable) -> tuple[bytes, Hashable] | None:
        conditions = dict(seen) if isinstance(seen, tuple) else {}
        response = self.get(INDEX, conditions)
        if response is None:
            return None
        with response:
            data = self._bounded(response, INDEX, LIMIT_BYTES)
            return data, conditions_of(response.headers)

    def small_file(self, path: str, limit_bytes: int) -> bytes:
        with self.get(path) as response:
            return self._bounded(response, path, limit_bytes)

    @contextlib.contextmanager
    def open(self, path: str, size: int) -> Iterator[_HttpFile]:
        with contextlib.ExitStack() as stack:
            yield _HttpFile(self, path, size, stack)

    def url(self, path: str) -> str:
        return f"{self.base}/{quote(path)}"

    def get(self, path: str, headers: Mapping[str, str] = MappingProxyType({})) -> Any:
        """The response to a GET, to be closed; None: 304."""
        url, self.retry_after_s = self.url(path), None
        asked = urllib.request.Request(url, headers={"Accept-Encoding": "identity", **headers})
        try:
            response = self.opener.open(asked, timeout=TIMEOUT_S)
        except HTTPError as e:
            e.close()
            if e.code == 304 and headers:
                return None
            self.retry_after_s = retry_after_s(e.headers.get("Retry-After"), time.time())
            raise DeviceError(f"{url} is answered with {e.code} {one_line(e.reason, 80)}", advice=CHECK) from e
        except (OSError, http.client.HTTPException, ValueError) as e:  # ValueError: a status line that is none
            raise _unreachable(url, e) from e
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise DeviceError(f"{url} comes compressed", advice="Let the server send files as they are.")
        if response.chunked:  # to http.client one read of it may have no end: a chunk's size or trailer, byte by byte
            response.close()
            raise DeviceError(f"{url} comes in chunks", advice="Let the server send files with their Content-Length.")
        return response

    def _bounded(self, response: Any, path: str, limit_bytes: int) -> bytes:
        data = read_up_to(response, limit_bytes + 1, SMALL_S, self.url(path))
        if len(data) > limit_bytes:
            raise IntegrityError(
                f"{self.url(path)} has more than {limit_bytes} bytes", advice="Check who serves there."
            )
        return data


class _HttpFile:
    """A file of `size` bytes, read in one response for as long as that goes well."""

    def __init__(self, source: HttpSource, path: str, size: int, stack: contextlib.ExitStack) -> None:
        self.source, self.path, self.size, self.stack = source, path, size, stack
        self.url = source.url(path)
        self.response: Any = None
        self.at = 0

    def read(self, offset: int, size: int) -> bytes:
        if self.response is None or offset != self.at:
            self.stack.close()
            self._start(offset)
        data = read_up_to(self.response, min(size, self.size - offset), PIECE_S, self.url)
        if not data and offset < self.size:
            raise DeviceError(f"{self.url} ended after {offset} of {self.size} bytes", advice=CHECK)
        self.at = offset + len(data)
        return data

    def _start(self, offset: int) -> None:
        wanted = {"Range": f"bytes={offset}-"} if offset else {}
        self.response = self.stack.enter_context(self.source.get(self.path, wanted))
        skip = 0
        if self.response.status == 206:
            match = RANGE.fullmatch(self.response.headers.get("Content-Range", ""))
            start, total = match.groups() if match else ("", "")
            right = start == str(offset) and total in ("*", str(self.size))
        else:
            skip, right = offset, self.response.headers.get("Content-Length", str(self.size)) == str(self.size)
        if not right:
            length = self.response.headers.get("Content-Range") or self.response.headers.get("Content-Length")
            raise IntegrityError(
                f"{self.url} has the length {one_line(length, 80)}, and its manifest says {self.size}",
                advice="Publish the bundle again.",
            )
        while skip:
            dropped = len(read_up_to(self.response, min(skip, BLOCK_BYTES), PIECE_S, self.url))
            if not dropped:
                raise DeviceError(f"{self.url} ended before byte {offset}", advice=CHECK)
            skip -= dropped


def read_up_to(response: Any, size: int, timeout_s: float, url: str) -> bytes:
    """`size` bytes, or fewer where the response ends or breaks off after some.

    Raises:
        DeviceError: None came, or they took longer than `timeout_s`.
    """
    deadline, have = time.monotonic() + timeout_s, 0
    parts: list[bytes] = []
    while have < size:
        try:
            block = response.read1(min(size - have, BLOCK_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as e:
            if parts:
                break
            raise _unreachable(url, e) from e
        if not block:
            break
        parts.append(block)
        have += len(block)
        if time.monotonic() > deadline:
            raise DeviceError(f"{url} sent {have} bytes in {timeout_s:g} s", advice=CHECK)
    return b"".join(parts)


def conditions_of(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers that ask for what has changed since this response. None of them where it had changed in the very
    seconds before: a second change in one second would have the same date, and on some servers the same ETag (RFC 9110,
    8.8.2.2)."""
    marks = {"If-None-Match": headers.get("ETag"), "If-Modified-Since": headers.get("Last-Modified")}
    changed, now = (_seconds(headers.get(name)) for name in ("Last-Modified", "Date"))
    if changed is not None and (now is None or now - changed < SETTLED_S):
        return ()
    return tuple((name, value) for name, value in marks.items() if value)


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """A Retry-After header, in seconds from `now_s` (since 1970). Source: RFC 9110, 10.2.3"""
    if value is None:
        return None
    if value.isascii() and value.strip().isdecimal():
        return float(value)
    at_s = _seconds(value)
    return None if at_s is None else max(0.0, at_s - now_s)


def _seconds(date: str | None) -> float | None:
    """An HTTP date in seconds since 1970; None: there is none."""
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def _unreachable(url: str, error: Exception) -> DeviceError:
    why = error.reason if isinstance(error, URLError) else error
    advice = CHECK
    if isinstance(why, ssl.SSLCertVerificationError):
        advice = "Pass the certificate of the server's own authority with --root-certificate; check the device's clock."
    words = why.strerror if isinstance(why, OSError) and why.strerror and not isinstance(why, ssl.SSLError) else why
    return DeviceError(f"{urlsplit(url).geturl()} does not answer: {one_line(words, 200)}", advice=advice)
