"""What asks a web server of whom nothing is believed: every wait ends, no redirect leads a device astray.

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from edgeloop.errors import DeviceError

HEAD_S = 60.0  # for all of a response's header, which may come byte by byte
PORTS = {"http": 80, "https": 443}


def http_opener(trusted: ssl.SSLContext) -> urllib.request.OpenerDirector:
    """It speaks http and https, through the environment's proxies, and no other scheme."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Http(),
        _Https(context=trusted),
        SafeRedirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


class SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Within the same server, or to one that TLS names: a plain server sends a device neither into its own network nor
    to a file."""

    max_redirections = 5

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.read = lambda: b""  # urllib would read the body, which may have no end
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request to `newurl`.

        Raises:
            DeviceError: It is of another server, and not https.
        """
        if urlsplit(newurl).scheme != "https" and origin(newurl) != origin(req.full_url):
            raise DeviceError(
                f"{_server(req.full_url)} redirects to {_server(newurl)}, which is neither the same server nor https",
                advice="Name the server that has the files.",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _server(url: str) -> str:
    """For messages: what a server redirects to may hold a token of its own."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}"[:200]


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)


class _HeadInTime:
    """A connection whose socket is shut where the whole header takes too long: each byte has a limit of its own."""

    sock: Any
    late = False

    def getresponse(self) -> http.client.HTTPResponse:
        timer = threading.Timer(HEAD_S, self._shut)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()  # type: ignore[misc]  # of the class beside this one
        except OSError:
            if not self.late:
                raise
        finally:
            timer.cancel()
        if self.late:  # to http.client a header that was cut ends there
            raise TimeoutError(f"no whole header came in {HEAD_S:g} s")
        return response

    def _shut(self) -> None:
        self.late = True
        with contextlib.suppress(OSError, AttributeError):  # it has just ended
            self.sock.shutdown(socket.SHUT_RDWR)


class _HttpConnection(_HeadInTime, http.client.HTTPConnection):
    pass


class _HttpsConnection(_HeadInTime, http.client.HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpConnection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpsConnection, req, context=self._context)  # type: ignore[attr-defined]
