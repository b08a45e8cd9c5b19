"""The routes that other folders mount on the page's server (http/routes.py)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

from edgeloop.errors import EdgeloopError
from edgeloop.http.routes import GROUP, Mount, Request, Response, Route, Site, error_response, json_response

log = logging.getLogger(__name__)


@contextlib.contextmanager
def mounted(site: Site, mounts: Mapping[str, Mount] | None = None) -> Iterator[Mapping[str, Route]]:
    """The routes of a page, by name, until the block ends. `mounts` None: those of all installed folders.

    Raises:
        EdgeloopError: As a route's `mount`, such as a server that it needs and cannot reach.
    """
    if mounts is None:
        mounts = {point.name: point.load() for point in entry_points(group=GROUP)}
    with contextlib.ExitStack() as stack:
        found = {name: stack.enter_context(mount(site)) for name, mount in sorted(mounts.items())}
        yield {name: route for name, route in found.items() if route is not None}


def answer(name: str, route: Route, request: Request) -> Response:
    """The route's response; an exception becomes one too."""
    try:
        return route.answer(request)
    except EdgeloopError as e:
        return error_response(e)
    except Exception:
        log.exception("route %s: %s failed", name, request.method)
        return json_response({"error": {"found": f"The route {name} failed. The log of the server says why."}}, 500)
