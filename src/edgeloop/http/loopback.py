"""Which names lead to this machine alone. Python 3.9 syntax, the standard library.

A page of a foreign site, open in a browser on this machine, reaches a server on loopback too: under a name of its own
that it lets resolve to 127.0.0.1 (DNS rebinding), or by sending a form. The first sends that name as Host, the second
the site's address as Origin.

Source: https://datatracker.ietf.org/doc/html/rfc6761#section-6.3 (localhost), https://fetch.spec.whatwg.org/#origin-header
"""

from __future__ import annotations

import re

_NAME = r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?"
HOST = re.compile(_NAME, re.IGNORECASE)
ORIGIN = re.compile("https?://" + _NAME, re.IGNORECASE)


def is_loopback_address(address: str) -> bool:
    """Whether a numeric address is reached from this machine alone."""
    return address == "::1" or address.startswith("127.")


def is_loopback_host(value: str) -> bool:
    """Whether the value of a Host header, with or without a port, names loopback."""
    return HOST.fullmatch(value) is not None


def is_loopback_origin(value: str) -> bool:
    """Whether the value of an Origin header is a page that this machine serves; `null` is not."""
    return ORIGIN.fullmatch(value) is not None
