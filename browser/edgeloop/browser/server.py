"""Serves the page and one bundle's files to a browser on this machine.

Every address is looked up whole in a table made from what may be served, so a path cannot lead anywhere else. Only
requests that name loopback are answered (http/base_server.py). The page is cross-origin isolated
(https://web.dev/articles/coop-coep) for the 5 us clock that timing needs.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from edgeloop.browser.assets import PAGE, need_assets
from edgeloop.bundle import MANIFEST, PROOF, read_bundle
from edgeloop.http.base_handler import SECURITY_HEADERS, BaseHandler
from edgeloop.http.base_server import LOOPBACK, BaseServer

BUNDLE = "/bundle/"
CLOSE_S = 5.0  # for downloads in flight when the block ends

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


@dataclass(frozen=True)
class PageServer:
    """A running server. `url` ends with a slash; files of the bundle are below `url + "bundle/"`."""

    url: str
    port: int


@contextlib.contextmanager
def serve(bundle_folder: str | Path, port: int = 0) -> Iterator[PageServer]:
    """Serve a bundle and the page that shows it to browsers of this machine, until the block ends.

    `port` 0 takes any free one; `port` and `url` of what is yielded say which.

    Raises:
        ModelError, IntegrityError: As `read_bundle`, which checks every file before the first request.
        DeviceError: The port is in use, or may not be listened on.
        MissingExtra: The page was not built.

    Example:
        >>> with browse("m/", port=8000) as page:
        ...     print(page.url)
        ...     input("Enter ends the server.")
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
    server = _FileServer(table, port)
    server.start()
    try:
        yield PageServer(f"{server.url}/", server.server_port)
    finally:
        server.close(CLOSE_S)


class _FileServer(BaseServer):
    """Serves the files of `table` {path of the address: file}."""

    def __init__(self, table: Mapping[str, Path], port: int) -> None:
        self.table = table
        super().__init__(LOOPBACK, port, _Handler, "--port")


class _Handler(BaseHandler):
    response_headers = HEADERS
    server: _FileServer

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
        """Send the head of the response; the file is its body, None: the response is complete."""
        path = self.server.table.get(unquote(urlsplit(self.path).path))
        # Asked at each request: a link may have come since the bundle was checked.
        if path is None or path.resolve() != path or not path.is_file():
            self.refuse(HTTPStatus.NOT_FOUND, "no such file here")
            return None
        file = path.open("rb")
        self.send_head(HTTPStatus.OK, TYPES.get(path.suffix, "application/octet-stream"), path.stat().st_size)
        return file
