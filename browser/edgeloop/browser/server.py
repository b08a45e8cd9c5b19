"""Serves the page and one bundle's files to a browser on this machine.

Every address is looked up whole in a table made from what may be served, so a path cannot lead anywhere else. Only
loopback names are answered: a foreign site that rebinds its name to 127.0.0.1 sends its own name and is refused.
The page is cross-origin isolated (https://web.dev/articles/coop-coep) for the 5 us clock that timing needs.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from edgeloop.browser.assets import PAGE, need_assets
from edgeloop.bundle import MANIFEST, PROOF, read_bundle
from edgeloop.errors import DeviceError

HOST = "127.0.0.1"
LOOPBACK_NAME = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?", re.IGNORECASE)
BUNDLE = "/bundle/"

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
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # a bundle converted again has the same addresses
    # Everything comes from this server; LiteRT.js compiles WebAssembly and needs no eval (measured with 2.5.3).
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
}


@dataclass(frozen=True)
class PageServer:
    """A running server. `url` ends with a slash; files of the bundle are below `url + "bundle/"`."""

    url: str
    port: int


@contextlib.contextmanager
def serve(bundle_folder: str | Path, port: int = 0) -> Iterator[PageServer]:
    """Serve a bundle and the page that shows it, until the block ends. `port` 0 takes any free one.

    Raises:
        ModelError, IntegrityError: As `read_bundle`, which checks every file before the first request.
        DeviceError: The port is in use, or may not be listened on.
        MissingExtra: The page was not built.
    """
    bundle = read_bundle(bundle_folder)
    names = {*bundle.manifest.files, MANIFEST, PROOF}
    folder = bundle.path.resolve()
    with serve_files({name: folder / name for name in names}, port) as served:
        yield served


@contextlib.contextmanager
def serve_files(files: Mapping[str, Path], port: int = 0) -> Iterator[PageServer]:
    """Serve the page and exactly these files {name: resolved path} below /bundle/. Raises as `serve`."""
    page = need_assets(PAGE).parent.resolve()
    table = {f"/{path.relative_to(page).as_posix()}": path for path in page.rglob("*") if path.is_file()}
    table["/"] = table["/index.html"]
    table.update({BUNDLE + name: path for name, path in files.items()})
    try:
        server = _Server((HOST, port), partial(_Handler, table))
    except OSError as e:
        raise DeviceError(_cannot_listen(port, e)) from e
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield PageServer(f"http://{HOST}:{server.server_port}/", server.server_port)
        finally:
            server.shutdown()
            thread.join()


def _cannot_listen(port: int, e: OSError) -> str:
    if e.errno == errno.EADDRINUSE:
        found = f"port {port} on {HOST} is in use, expected a free one"
    else:
        found = f"cannot listen on port {port} of {HOST}: {e.strerror}"
    return f"{found}. Choose another with --port, or leave it out for any."


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a tab closed while it loads is no fault of the server's
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgeloop", ""
    timeout = 30  # seconds a silent connection may hold its thread

    def __init__(self, table: Mapping[str, Path], *arguments: Any) -> None:
        self.table = table
        super().__init__(*arguments)

    def do_GET(self) -> None:
        file = self._open()
        if file:
            with file:
                shutil.copyfileobj(file, self.wfile, 1 << 20)

    def do_HEAD(self) -> None:
        file = self._open()
        if file:
            file.close()

    def _open(self) -> BinaryIO | None:
        """Send the head of the answer; the file is the body, None when the answer is complete already."""
        if not LOOPBACK_NAME.fullmatch(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.FORBIDDEN, "this server answers to loopback names only")
            return None
        path = self.table.get(unquote(urlsplit(self.path).path))
        # Asked at each request: a link may have come since the bundle was checked.
        if path is None or path.resolve() != path or not path.is_file():
            self._refuse(HTTPStatus.NOT_FOUND, "no such file here")
            return None
        file = path.open("rb")
        size = path.stat().st_size
        self._head(HTTPStatus.OK, TYPES.get(path.suffix, "application/octet-stream"), size)
        return file

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        body = f"{why}\n".encode()
        self._head(status, "text/plain; charset=utf-8", len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str, size: int) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(size)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the terminal belongs to the verb that serves."""
