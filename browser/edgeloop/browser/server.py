"""Serves the page and one bundle's files to a browser on this machine.

Every address is looked up whole in a table made from what may be served, so a path cannot lead anywhere else. Only
requests that name loopback are answered (http/base_server.py). The page is cross-origin isolated
(https://web.dev/articles/coop-coep) for the 5 us clock that timing needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.browser.access import TOKEN, new_token
from edgeloop.browser.assets import PAGE, need_assets
from edgeloop.browser.mounted_routes import mounted
from edgeloop.browser.page_handler import FileServer
from edgeloop.bundle import MANIFEST, PROOF, read_bundle
from edgeloop.http.base_server import LOOPBACK
from edgeloop.http.routes import Mount, Route, Site

BUNDLE = "/bundle/"
ROUTES = b'<meta name="edgeloop-routes" content="'  # where web/src/page/routes.ts reads them
CLOSE_S = 5.0  # for downloads in flight when the block ends


@dataclass(frozen=True)
class PageServer:
    """A running server. `url` opens the page, with the token where one is needed."""

    url: str
    port: int


@contextlib.contextmanager
def serve(
    bundle_folder: str | Path,
    port: int = 0,
    *,
    options: Mapping[str, Any] | None = None,
    mounts: Mapping[str, Mount] | None = None,
) -> Iterator[PageServer]:
    """Serve a bundle and the page that shows it to browsers of this machine, until the block ends.

    Args:
        port: 0 takes any free one; `port` and `url` of what is yielded say which.
        options: What routes are told (`http.routes.Site.options`).
        mounts: Mount these routes; None: those of all installed folders.

    Raises:
        ModelError, IntegrityError: As `read_bundle`, which checks every file before the first request.
        DeviceError: The port is in use, or may not be listened on.
        MissingExtra: The page was not built.
        EdgeloopError: As a route that is mounted.

    Example:
        >>> with browse("m/", port=8000) as page:
        ...     print(page.url)
        ...     input("Enter ends the server.")
    """
    bundle = read_bundle(bundle_folder)
    names = {*bundle.manifest.files, MANIFEST, PROOF}
    folder = bundle.path.resolve()
    with (
        mounted(Site(folder, options or {}), mounts) as routes,
        _serving({name: folder / name for name in names}, routes, port) as served,
    ):
        yield served


@contextlib.contextmanager
def serve_files(files: Mapping[str, Path], port: int = 0) -> Iterator[PageServer]:
    """Serve the page and these files {name: resolved path} below /bundle/ alone, without routes. Raises as `serve`."""
    with _serving(files, {}, port) as served:
        yield served


@contextlib.contextmanager
def _serving(files: Mapping[str, Path], routes: Mapping[str, Route], port: int) -> Iterator[PageServer]:
    index = need_assets(PAGE)
    page = index.parent.resolve()
    table = {f"/{path.relative_to(page).as_posix()}": path for path in page.rglob("*") if path.is_file()}
    table.update({BUNDLE + name: path for name, path in files.items()})
    token = new_token() if any(route.requires_token for route in routes.values()) else None
    server = FileServer(_with_routes(index.read_bytes(), routes), table, routes, LOOPBACK, port, token)
    server.start()
    try:
        yield PageServer(f"{server.url}/{f'?{TOKEN}={token}' if token else ''}", server.server_port)
    finally:
        server.close(CLOSE_S)


def _with_routes(index: bytes, routes: Iterable[str]) -> bytes:
    """index.html with the names of the mounted routes."""
    return index.replace(ROUTES, ROUTES + " ".join(sorted(routes)).encode(), 1)
