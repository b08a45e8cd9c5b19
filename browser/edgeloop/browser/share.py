"""Show the page to a phone: its address as a QR code, in the terminal and in the page's panel."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from edgeloop.errors import MissingExtra
from edgeloop.extras import need
from edgeloop.http.routes import Request, Response, json_response, not_found

SHARE = "share"  # the route's name
WHITE_ON_BLACK, PLAIN = "\x1b[38;5;231;48;5;16m", "\x1b[0m"  # of the 256 colours: a theme changes the first 16 alone
PLAIN_HTTP = (
    "Over http a browser on another machine gives the page no camera, no WebGPU, no precise clock and no offline use. "
    "Pass --certificate and --certificate-key for these."
)


class ShareRoute:
    """`GET /api/share/`: {address, note}; `GET /api/share/qr.svg`: the address as a picture.

    Only a page that has the token gets them.
    """

    requires_token = True
    limits_bytes: Mapping[str, int] = {"GET": 0}

    def __init__(self, address: str, secure_context: bool) -> None:
        self.address, self.note = address, "" if secure_context else PLAIN_HTTP

    def answer(self, request: Request) -> Response:
        """Raises MissingExtra where `segno` is not installed, for the picture alone."""
        if request.path == "":
            return json_response({"address": self.address, "note": self.note})
        if request.path == "qr.svg":
            picture = io.BytesIO()
            _code(self.address).save(picture, kind="svg", scale=4, light="white")
            return Response(picture.getvalue(), "image/svg+xml")
        return not_found(request)


def terminal_code(address: str, in_colour: bool) -> str:
    """The QR code for a terminal, in half blocks; without `segno` how to get it.

    A terminal gets it `in_colour`, white on black: on a light ground it would be inverted, and have no margin.
    """
    drawn = io.StringIO()
    try:
        _code(address).terminal(drawn, compact=True)
    except MissingExtra as e:
        return f"No QR code: {e}"
    before, after = (WHITE_ON_BLACK, PLAIN) if in_colour else ("", "")
    return "\n".join(f"{before}{line}{after}" for line in drawn.getvalue().splitlines())


def _code(address: str) -> Any:
    """Raises MissingExtra."""
    return need("segno", extra="browser").make_qr(address, error="m")
