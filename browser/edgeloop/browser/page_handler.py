"""One connection to the page's server: who may ask, then a route or a file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from edgeloop.browser.access import address_token, cookie_token, is_own_page, is_token, set_cookie
from edgeloop.browser.mounted_routes import answer
from edgeloop.http.base_handler import SECURITY_HEADERS, BaseHandler
from edgeloop.http.base_server import BaseServer
from edgeloop.http.routes import API, Request, Route

TYPES = {  # not from the machine's own mime.types: some map .js to text/plain, which a module script refuses
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".md": "text/plain; charset=utf-8",
}
HEADERS = {
    **SECURITY_HEADERS,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    # Everything comes from this server; LiteRT.js compiles WebAssembly and needs no eval (measured with 2.5.3).
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
}


class PageHandler(BaseHandler):
    """Answers from its server's `table` of files and from its `routes`."""

    response_headers = HEADERS
    server: FileServer

    def parse_request(self) -> bool:
        self._cookie: dict[str, str] = {}
        if not super().parse_request():
            return False
        token = self.server.token
        if token is not None and not is_token(cookie_token(self.headers, self.server.server_port), token):
            if not is_token(address_token(self.path), token):
                self.refuse(
                    HTTPStatus.FORBIDDEN,
                    "The address lacks its token. Open the whole address that edgeloop browse printed.",
                )
                return False
            self._cookie = {"Set_Cookie": set_cookie(token, self.server.server_port, encrypted=False)}
        return True

    def do_GET(self) -> None:
        if self._is_route() or self._is_index():
            return
        file = self._open()
        if file:
            with file:
                shutil.copyfileobj(file, self.wfile, 1 << 20)

    def do_HEAD(self) -> None:
        if self._is_route() or self._is_index():
            return
        file = self._open()
        if file:
            file.close()

    def do_POST(self) -> None:
        if not self._is_route():
            self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, "Files are read with GET.")

    do_PUT = do_DELETE = do_PATCH = do_POST

    def _is_route(self) -> bool:
        """Whether the address is a route's; it is answered then."""
        target = urlsplit(self.path)
        if not target.path.startswith(API):
            return False
        name, _, path = target.path.removeprefix(API).partition("/")
        route = self.server.routes.get(name)
        if route is None:
            self.refuse(HTTPStatus.NOT_FOUND, "This server has no such route.")
        elif not is_own_page(self.headers):
            self.refuse(HTTPStatus.FORBIDDEN, "Only the page of this server may ask its routes.")
        else:
            self._answer(name, route, unquote(path), dict(parse_qsl(target.query)))
        return True

    def _answer(self, name: str, route: Route, path: str, query: Mapping[str, str]) -> None:
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

    def _is_index(self) -> bool:
        """Whether the page itself is asked for; it is answered then."""
        if urlsplit(self.path).path not in ("/", "/index.html"):
            return False
        self.respond(HTTPStatus.OK, TYPES[".html"], self.server.index, **self._cookie)
        return True

    def _open(self) -> BinaryIO | None:
        """Send the head of the response; the file is its body, None: the response is complete."""
        path = self.server.table.get(unquote(urlsplit(self.path).path))
        # Asked at each request: a link may have come since the bundle was checked.
        if path is None or path.resolve() != path or not path.is_file():
            self.refuse(HTTPStatus.NOT_FOUND, "no such file here")
            return None
        file = path.open("rb")
        content_type = TYPES.get(path.suffix, "application/octet-stream")
        self.send_head(HTTPStatus.OK, content_type, path.stat().st_size, **self._cookie)
        return file


class FileServer(BaseServer):
    """Serves the page `index`, the files of `table` {path of the address: file} and the routes.

    `token` None: nobody needs one.
    """

    def __init__(
        self,
        index: bytes,
        table: Mapping[str, Path],
        routes: Mapping[str, Route],
        host: str,
        port: int,
        token: str | None,
    ) -> None:
        self.index, self.table, self.routes, self.token = index, table, routes, token
        super().__init__(host, port, PageHandler, "--port")
