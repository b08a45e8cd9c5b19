"""One connection to the page's server: who may ask, then a route or a file."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from edgeloop.browser.access import TOKEN, address_token, cookie_token, is_own_page, is_token, set_cookie
from edgeloop.browser.listening import Listening
from edgeloop.browser.mounted_routes import answer
from edgeloop.browser.served_files import TYPES, ServedSite
from edgeloop.http.base_handler import SECURITY_HEADERS, BaseHandler
from edgeloop.http.base_server import BaseServer
from edgeloop.http.routes import API, Request, Route

COPY_BYTES = 1 << 20  # in memory of a file on its way, however large it is
HEADERS = {
    **SECURITY_HEADERS,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    # Everything comes from this server; LiteRT.js compiles WebAssembly and needs no eval (measured with 2.5.3).
    # Pictures that the page itself makes of its inputs are blob: or data:.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
}
KEPT = "max-age=31536000, immutable"  # a year, as long as HTTP can say
REVALIDATED = "no-cache"


class PageHandler(BaseHandler):
    """Answers from its server's `site` and from its `routes`."""

    response_headers = HEADERS
    server: PageHttpServer

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(self.timeout)
            self.server.waits(self.request)  # a client that never begins TLS gives its place to others
            try:
                self.request.do_handshake()
            except OSError as e:  # no TLS, or a client that does not trust the certificate
                raise ConnectionAbortedError(str(e)) from e
        super().setup()

    def parse_request(self) -> bool:
        self._cookie: dict[str, str] = {}
        if not super().parse_request():
            return False
        try:
            for address in (self.path, *self.headers.get_all("Origin", [])):
                urlsplit(address)
        except ValueError:  # such as http://[
            self.refuse(HTTPStatus.BAD_REQUEST, "The address or the Origin of the request is no address.")
            return False
        hosts, bound = self.headers.get_all("Host", []), self.server.server_name
        if not self.server.loopback and not self.server.listening.accepts(hosts, bound):
            self.refuse(HTTPStatus.FORBIDDEN, "The server has another name. Open the address that it printed.")
            return False
        token, port = self.server.token, self.server.server_port
        if token is None or is_token(cookie_token(self.headers, port), token):
            return True
        if not is_token(address_token(self.path), token):
            self.refuse(
                HTTPStatus.FORBIDDEN,
                "The token is missing, or is another one. Open the whole address that edgeloop browse printed.",
            )
            return False
        self._cookie = {"Set_Cookie": set_cookie(token, port, self.server.listening.encrypted)}
        return True

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        if target.path.startswith(API):
            self._answer_route(target.path.removeprefix(API), target.query)
        elif self.command not in ("GET", "HEAD"):
            self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, "Files are read with GET.")
        elif target.path in ("/", "/index.html"):
            self._send_page()
        else:
            self._send_file(unquote(target.path))

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def _answer_route(self, below: str, query: str) -> None:
        name, _, path = below.partition("/")
        route = self.server.routes.get(name)
        if route is None:
            self.refuse(HTTPStatus.NOT_FOUND, "This server has no such route.")
        elif not is_own_page(self.headers):
            self.refuse(HTTPStatus.FORBIDDEN, "Only the page of this server may ask its routes.")
        else:
            self._run_route(name, route, unquote(path), dict(parse_qsl(query)))

    def _run_route(self, name: str, route: Route, path: str, query: Mapping[str, str]) -> None:
        method = "GET" if self.command == "HEAD" else self.command
        if method not in route.limits_bytes:
            methods = ", ".join(sorted(route.limits_bytes))
            self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} is none of the methods of this route: {methods}.")
            return
        body = b"" if method == "GET" else self.read_body(route.limits_bytes[method])
        if body is not None:
            request = Request(method, path, query, self.headers, body, lambda: self.server.closing)
            response = answer(name, route, request)
            headers = {key.replace("-", "_"): value for key, value in response.headers.items()}
            self.respond(response.status, response.content_type, response.body, **headers, **self._cookie)

    def _send_page(self) -> None:
        index, tag = self.server.site.index, self.server.site.tag
        if not self._is_known(tag, Cache_Control=REVALIDATED):
            self.respond(HTTPStatus.OK, TYPES[".html"], index, ETag=tag, Cache_Control=REVALIDATED, **self._cookie)

    def _send_file(self, path: str) -> None:
        file = self.server.site.files.get(path)
        if file is None or not file.exists():
            self.refuse(HTTPStatus.NOT_FOUND, "no such file here")
            return
        asked = self.headers.get("Range", "")
        coding = None if asked else file.coding(self.headers.get("Accept-Encoding", ""))
        tag, size_bytes = file.etag(coding), file.size(coding)
        headers = {"ETag": tag, "Cache_Control": KEPT if file.immutable else REVALIDATED, "Accept_Ranges": "bytes"}
        headers.update({"Vary": "Accept-Encoding"} if file.forms else {})
        headers.update({"Content_Encoding": coding} if coding else {})
        if self._is_known(tag, **headers):
            return
        part = byte_range(asked, size_bytes) if self.headers.get("If-Range", tag) == tag else None
        if part is not None and not part:
            content_type, body = self.error_body(f"The file has {size_bytes} bytes.")
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            self.respond(status, content_type, body, Content_Range=f"bytes */{size_bytes}")
            return
        status = HTTPStatus.OK
        if part is not None:
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content_Range"] = f"bytes {part.start}-{part.stop - 1}/{size_bytes}"
        part = part or range(size_bytes)
        self.send_head(status, file.content_type, len(part), **headers, **self._cookie)
        if self.command == "GET":
            with file.open(coding) as opened:
                self._copy(opened, part)

    def _is_known(self, tag: str, **headers: str) -> bool:
        """Whether the browser has these bytes: it is told so, in place of them."""
        known = {one.strip().removeprefix("W/") for one in self.headers.get("If-None-Match", "").split(",")}
        if tag not in known:
            return False
        self.send_response(HTTPStatus.NOT_MODIFIED)
        own = {name.replace("_", "-"): value for name, value in {"ETag": tag, **headers, **self._cookie}.items()}
        for name, value in {**self.response_headers, **own}.items():
            self.send_header(name, value)
        self.end_headers()
        return True

    def _copy(self, opened: BinaryIO, part: range) -> None:
        opened.seek(part.start)
        left = len(part)
        while left and (piece := opened.read(min(left, COPY_BYTES))):
            self.wfile.write(piece)
            left -= len(piece)
        if left:  # the file became shorter: the connection ends, so that the browser does not take this for all of it
            self.close_connection = True


class PageHttpServer(BaseServer):
    """Gives out `site` and answers for `routes`, both set before `start`. `token` None: nobody needs one."""

    site: ServedSite
    routes: Mapping[str, Route]
    token: str | None = None

    def __init__(self, listening: Listening) -> None:
        self.listening = listening
        self._tls = listening.tls_context()
        self.scheme = listening.scheme
        super().__init__(listening.host, listening.port, PageHandler, "--port")

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._tls:  # the handshake waits for the client: it takes place in the connection's own thread
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    @property
    def secure_context(self) -> bool:
        """Whether browsers grant the page what they grant to trustworthy addresses alone.

        That is: isolation and its clock, the camera, WebGPU, service workers, installation
        (https://www.w3.org/TR/secure-contexts/).
        """
        return self.listening.encrypted or self.loopback

    @property
    def page_url(self) -> str:
        """What a browser opens, with the token where one is needed; `url`, which goes into the log, has none."""
        address = self.listening.address(self.server_name, self.server_port)
        return f"{address}/?{TOKEN}={self.token}" if self.token else f"{address}/"


def byte_range(asked: str, size_bytes: int) -> range | None:
    """The bytes that a Range header asks for: empty, where the file ends before; None: all, as without the header.

    Several ranges in one header are answered with all, as HTTP allows (RFC 9110, section 14.2).
    """
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked.replace(" ", ""))
    if not found or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:  # the last so many
        return range(max(0, size_bytes - int(last)), size_bytes)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size_bytes, int(last) + 1) if last else size_bytes)
