"""Serves the page and one bundle's files to a browser.

Every address is looked up whole in a table made from what may be served, so a path cannot lead anywhere else. By
default it listens on loopback, and only requests that name loopback are answered (http/base_server.py). The page is
cross-origin isolated (https://web.dev/articles/coop-coep) for the 5 us clock that timing needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.browser.access import new_token
from edgeloop.browser.assets import PAGE, need_assets
from edgeloop.browser.listening import Listening
from edgeloop.browser.mounted_routes import mounted
from edgeloop.browser.page_handler import PageHttpServer
from edgeloop.browser.served_files import ServedFile, ServedSite, page_files
from edgeloop.browser.share import SHARE, ShareRoute
from edgeloop.bundle import MANIFEST, PROOF, read_bundle
from edgeloop.http.base_server import LOOPBACK
from edgeloop.http.routes import Mount, Route, Site

BUNDLE = "/bundle/"
ROUTES = b'<meta name="edgeloop-routes" content="'  # where web/src/page/routes.ts reads them
CLOSE_S = 1.0  # for downloads in flight when the block ends: Ctrl-C is to end at once


@dataclass(frozen=True)
class PageServer:
    """A running server.

    Attributes:
        url: Opens the page, with the token where one is needed.
        shared: Whether other machines reach it.
        secure_context: Whether browsers grant the page the camera and the rest (`PageHttpServer.secure_context`).
    """

    url: str
    port: int
    shared: bool
    secure_context: bool


@contextlib.contextmanager
def serve(
    bundle_folder: str | Path,
    port: int = 0,
    *,
    host: str = LOOPBACK,
    certificate: Path | None = None,
    key: Path | None = None,
    options: Mapping[str, Any] | None = None,
    mounts: Mapping[str, Mount] | None = None,
) -> Iterator[PageServer]:
    """Serve a bundle and the page that shows it, until the block ends.

    Args:
        port: 0 takes any free one; `port` and `url` of what is yielded say which.
        host: Listen on this address or name; others than loopback serve other machines, which need the token.
        certificate: PEM file: serve with TLS.
        key: PEM file of the certificate's private key, where `certificate` does not hold it.
        options: What routes are told (`http.routes.Site.options`).
        mounts: Mount these routes; None: those of all installed folders.

    Raises:
        ModelError, IntegrityError: As `read_bundle`, which checks every file before the first request.
        OptionsError: The certificate or the key cannot be used.
        DeviceError: The port is in use, or may not be listened on.
        MissingExtra: The page was not built.
        EdgeloopError: As a route that is mounted.

    Example:
        >>> with browse("m/", port=8000) as page:
        ...     print(page.url)
        ...     input("Enter ends the server.")
    """
    listening = Listening(host=host, port=port, certificate=certificate, key=key)
    bundle = read_bundle(bundle_folder)
    names = {*bundle.manifest.files, MANIFEST, PROOF}
    folder = bundle.path.resolve()
    with (
        mounted(Site(folder, options or {}), mounts) as routes,
        _serving({name: folder / name for name in names}, routes, listening) as served,
    ):
        yield served


@contextlib.contextmanager
def serve_files(files: Mapping[str, Path], port: int = 0) -> Iterator[PageServer]:
    """Serve the page and these files {name: resolved path} below /bundle/ alone, without routes. Raises as `serve`."""
    with _serving(files, {}, Listening(port=port)) as served:
        yield served


@contextlib.contextmanager
def _serving(files: Mapping[str, Path], routes: Mapping[str, Route], listening: Listening) -> Iterator[PageServer]:
    index = need_assets(PAGE)
    own = {f"/{name}": file for name, file in page_files(index.parent.resolve()).items()}
    listed = {BUNDLE + name: ServedFile(path=path) for name, path in files.items()}
    with PageHttpServer(listening) as server:
        shared = not server.loopback
        if shared or any(route.requires_token for route in routes.values()):
            server.token = new_token()
        share = {SHARE: ShareRoute(server.page_url, server.secure_context)} if shared else {}
        server.routes = {**routes, **share}
        server.site = ServedSite(_with_routes(index.read_bytes(), server.routes), {**own, **listed})
        server.start()
        try:
            yield PageServer(server.page_url, server.server_port, shared, server.secure_context)
        finally:
            server.close(CLOSE_S)


def _with_routes(index: bytes, routes: Iterable[str]) -> bytes:
    """index.html with the names of the mounted routes."""
    return index.replace(ROUTES, ROUTES + " ".join(sorted(routes)).encode(), 1)
