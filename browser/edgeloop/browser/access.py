"""Who may ask the page's server: names, origins and the token.

The token is a random word in the address that `browse` prints. The first request with it is answered with a cookie,
which every later request needs; other pages cannot read the cookie or have it sent (SameSite=Strict, HttpOnly).
Cookies of one host are shared by its ports, so the cookie's name has the port.

Source: https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis-22, https://www.w3.org/TR/fetch-metadata/
"""

from __future__ import annotations

import hmac
import secrets
from email.message import Message
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

TOKEN = "token"  # its name in the address


def new_token() -> str:
    """128 random bits, in letters that stand in an address as they are."""
    return secrets.token_urlsafe(16)


def address_token(target: str) -> str:
    """The token in a request's target; empty without one."""
    return parse_qs(urlsplit(target).query).get(TOKEN, [""])[-1]


def cookie_token(headers: Message, port: int) -> str:
    """The token in a request's cookie; empty without one."""
    try:
        cookie = SimpleCookie(headers.get("Cookie", "")).get(_name(port))
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def is_token(found: str, token: str) -> bool:
    """Compare in a time that tells nothing of where they differ."""
    return hmac.compare_digest(found.encode("utf-8", "replace"), token.encode())


def set_cookie(token: str, port: int, encrypted: bool) -> str:
    """The value of Set-Cookie. It ends with the browser's session."""
    return f"{_name(port)}={token}; Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if encrypted else "")


def is_own_page(headers: Message) -> bool:
    """Whether a request comes from a page of this server, from the user or from a program; not from a foreign page.

    Browsers name the page's origin in whatever is not a plain GET, and in all requests, if they come to a trustworthy
    address (TLS or loopback), whether the page is a foreign one.
    """
    origin, host = headers.get("Origin"), headers.get("Host", "")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return False
    return headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")


def _name(port: int) -> str:
    return f"edgeloop-{port}"
