"""Routes: what a folder mounts on the page's server (browser/), which knows none of these folders.

A folder names a function in pyproject.toml; the name of the entry point is the route's:

    [project.entry-points."edgeloop.routes"]
    federate = "edgeloop.federated.gateway.route:mount"

The function is a context manager. It is entered before the server listens and left after its last request; it yields
the route, or None where there is nothing to answer:

    class Gateway:
        requires_token = True
        limits_bytes = {"GET": 0, "POST": 16 << 20}

        def answer(self, request: Request) -> Response:
            if request.path == "join" and request.method == "POST":
                return json_response({"node": self.admit(request.body)})
            return not_found(request)

    @contextlib.contextmanager
    def mount(site: Site) -> Iterator[Gateway | None]:
        yield Gateway(site.options["federate"]) if "federate" in site.options else None

That route answers `/api/federate/join`; in the page: `fetch(routeUrl("federate", "join"), {method: "POST", body})`, and
`hasRoute("federate")` says whether it is mounted (web/src/page/routes.ts). What the server does for every route,
before `answer` is called:

- Host: it must name loopback, or, after `--host`, the address that the server was given. Otherwise 403.
- Origin and Sec-Fetch-Site, where the browser sends them: they must be the page's own. Otherwise 403.
- Token: with `--host`, or where a mounted route has `requires_token`, every request needs the cookie that the address
  with the token sets. Otherwise 403. The address that `browse` prints has the token.
- Method: one of `limits_bytes`; otherwise 405. HEAD is answered as GET.
- Body: read whole, with one Content-Length, not longer than `limits_bytes[method]` (413), within 15 s (else the
  connection ends), and within 64 MB for all requests at a time (503).

`answer` runs in the connection's thread, so several run at once; it may wait, and then looks at `request.closing()`
at least every second. An EdgeloopError that it raises becomes `{"error": {type, exit_code, found, advice}}` with the
status of STATUSES, any other exception 500 and a line in the log. Responses carry `Cache-Control: no-store`.

Importing the module of `mount` must be light: it happens at every `browse`. Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import Any, Optional, Protocol

from edgeloop.errors import (
    DataError,
    DeviceError,
    EdgeloopError,
    IntegrityError,
    MissingExtra,
    ModelError,
    OptionsError,
    TargetError,
)

GROUP = "edgeloop.routes"
API = "/api/"


@dataclass(frozen=True)
class Site:
    """What a route is mounted on.

    Attributes:
        bundle: Folder of the bundle that the page shows, checked; the page's `bundle/` holds its files.
        options: Options of `browse` that are meant for routes, by name without dashes, e.g. {"federate": "HOST:PORT"}.
    """

    bundle: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A request that has passed every check.

    Attributes:
        path: What follows `/api/NAME/`, decoded: "join". It may hold anything that a client sends.
        query: Of the address; the last of several values of a name.
        headers: Their names are found in any case.
        body: Empty without one.
        closing: Whether the server is ending: what waits gives up.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message
    body: bytes = b""
    closing: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Response:
    """`headers`: further ones, by their names."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Route(Protocol):
    """`limits_bytes`: the methods it takes, and the longest body of each (0: none).

    `requires_token`: the whole server asks for the token, on loopback too.
    """

    @property
    def limits_bytes(self) -> Mapping[str, int]: ...

    @property
    def requires_token(self) -> bool: ...

    def answer(self, request: Request) -> Response: ...


Mount = Callable[[Site], AbstractContextManager[Optional[Route]]]


STATUSES: Mapping[type[EdgeloopError], int] = {
    OptionsError: HTTPStatus.BAD_REQUEST,
    DataError: HTTPStatus.BAD_REQUEST,
    IntegrityError: HTTPStatus.BAD_REQUEST,
    ModelError: HTTPStatus.UNPROCESSABLE_ENTITY,
    TargetError: HTTPStatus.UNPROCESSABLE_ENTITY,
    MissingExtra: HTTPStatus.NOT_IMPLEMENTED,
    DeviceError: HTTPStatus.SERVICE_UNAVAILABLE,
}


def json_response(document: object, status: int = 200) -> Response:
    """A document as JSON; NaN and infinity are refused (ValueError), which JavaScript cannot read."""
    return Response(json.dumps(document, allow_nan=False).encode(), status=status)


def not_found(request: Request) -> Response:
    """A route has no such path, or not with this method."""
    found = f"{request.method} {request.path[:80]!r} is none of this route's requests"
    return json_response({"error": {"found": found}}, HTTPStatus.NOT_FOUND)


def error_response(error: EdgeloopError) -> Response:
    """The status of its class and, as JSON, what was found and what to do."""
    found = (status for kind, status in STATUSES.items() if isinstance(error, kind))
    return json_response({"error": error.to_json()}, next(found, HTTPStatus.INTERNAL_SERVER_ERROR))
