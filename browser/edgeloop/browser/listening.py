"""Where the page's server listens, under which names it answers, and with which certificate."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgeloop.errors import OptionsError
from edgeloop.http.base_server import LOOPBACK
from edgeloop.http.loopback import is_loopback_address, is_loopback_host

ALL = ("0.0.0.0", "::")  # every address of this machine
OUTSIDE = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}  # for documentation: nobody has them, and nothing is sent there


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """How browsers reach the page's server.

    Attributes:
        host: Address or name of this machine to listen on. Others than loopback are for other machines, which then
            need the token.
        port: 0: any that is free.
        certificate: PEM file of the certificate and its chain: the server speaks TLS.
        key: PEM file of its private key; None: it stands in `certificate`.

    Raises:
        OptionsError: A key without a certificate.
    """

    host: str = LOOPBACK
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if self.key and not self.certificate:
            raise OptionsError(
                f"--certificate-key {self.key} has no certificate", advice="Pass --certificate FILE too."
            )

    @property
    def encrypted(self) -> bool:
        return self.certificate is not None

    @property
    def scheme(self) -> str:
        return "https" if self.encrypted else "http"

    def accepts(self, hosts: Sequence[str], bound: str) -> bool:
        """Whether the values of a request's Host headers name this server, with any port.

        `bound`: the numeric address that the server listens on. A foreign page that lets its own name resolve to this
        machine sends that name; it cannot send a numeric address.
        """
        return len(hosts) == 1 and (is_loopback_host(hosts[0]) or self._is_named(hosts[0], bound))

    def _is_named(self, value: str, bound: str) -> bool:
        try:
            found = (urlsplit(f"//{value}").hostname or "").lower()
        except ValueError:
            return False
        address = _numeric(found)
        if address is None:
            return found != "" and found == self.host.lower()
        return bound in ALL or address == _numeric(bound)

    def address(self, bound: str, port: int) -> str:
        """What browsers open, without a slash at the end: `host` where it is a name that the server answers to, else
        the numeric address `bound` that the server listens on."""
        name = self.host.strip("[]")
        if bound in ALL:
            name = _outward_address(bound)
        elif is_loopback_address(bound):
            name = name if is_loopback_host(name) else bound
        elif _is_numeric(name):
            name = bound
        return f"{self.scheme}://{f'[{name}]' if ':' in name else name}:{port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """None without a certificate.

        Raises:
            OptionsError: The files cannot be read, do not belong together, or the key needs a passphrase.
        """
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:  # an empty passphrase: OpenSSL would ask for it in the terminal
            context.load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ValueError) as e:
            files = f"{self.certificate} and {self.key}" if self.key else f"{self.certificate}"
            raise OptionsError(
                f"{files} cannot be used for TLS: {getattr(e, 'reason', None) or getattr(e, 'strerror', None) or e}",
                advice="Pass a certificate and its private key as PEM files, the key without a passphrase.",
            ) from e
        return context


def _numeric(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a name spells in numbers; None for other names."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name)
    return None


def _is_numeric(name: str) -> bool:
    """Whether a name needs no look-up; also the short forms of IPv4 that browsers write out, such as 10.1."""
    with contextlib.suppress(OSError):
        return bool(socket.inet_aton(name))
    return ":" in name


def _outward_address(everywhere: str) -> str:
    """The address under which this machine's network reaches it: that of the interface towards the outside."""
    family = socket.AF_INET6 if ":" in everywhere else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((OUTSIDE[everywhere], 9))  # a datagram socket: this looks up the route and sends nothing
        return str(probe.getsockname()[0])
    return LOOPBACK if family == socket.AF_INET else "::1"
