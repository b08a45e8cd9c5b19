"""Mounts the gateway on the page's server, where `browse --federate` asks for it (http/routes.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeloop.http.routes import Site

if TYPE_CHECKING:
    from edgeloop.federated.gateway.tab_requests import TabRequests


@contextlib.contextmanager
def mount(site: Site) -> Iterator[TabRequests | None]:
    """The route `federate` for tabs of the page that shows `site.bundle`.

    Raises:
        EdgeloopError: As `gateway` and `GatewayOptions`.
    """
    given = site.options.get("federate")
    if given is None:
        yield None
        return
    from edgeloop.bundle import read_bundle
    from edgeloop.federated.gateway.gateway import gateway
    from edgeloop.federated.gateway.options import GatewayOptions
    from edgeloop.federated.gateway.tab_requests import TabRequests

    options = GatewayOptions(
        url=given,
        keys=site.options["key"],
        certificate=site.options["root-certificate"],
        insecure=site.options["insecure"],
        tabs=site.options["tabs"],
    )
    with gateway(read_bundle(site.bundle), options) as opened:
        yield TabRequests(opened)
