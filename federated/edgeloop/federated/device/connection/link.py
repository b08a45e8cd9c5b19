"""Where a SuperLink is and how a device proves who it is."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from typing import Any

from edgeloop.errors import DataError, OptionsError, one_line

PORT = 9092  # Flower's own
LIMIT_BYTES = 1 << 20  # of a file of root certificates; those of a system have a fifth of it
FORM = "Expected HOST:PORT, or https://HOST:PORT."


@dataclass(frozen=True)
class Link:
    """One SuperLink as a device sees it.

    Attributes:
        address: HOST:PORT.
        insecure: Plain HTTP: nothing is encrypted, and neither side is checked.
        certificate: The root certificates (PEM) that the server's own must lead to; None: those of the system.
        key: File of the device's EC private key in OpenSSH's format; None: a new identity with each start.
    """

    address: str
    insecure: bool = False
    certificate: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if self.insecure and self.certificate:
            raise OptionsError(
                "--insecure is given, and so is --root-certificate", advice="Pass one of them: plain HTTP has no TLS."
            )

    def root_certificates(self) -> ssl.SSLContext | None:
        """What checks a server by `certificate`.

        Raises:
            DataError: No such file, larger than 1 MiB, no certificate in it, or a damaged one.
        """
        if self.certificate is None:
            return None
        advice = "Pass the root certificates as a PEM file."
        try:
            with open(self.certificate, encoding="ascii") as file:
                text = file.read(LIMIT_BYTES + 1)
        except (OSError, UnicodeDecodeError) as e:
            raise DataError(f"{self.certificate} cannot be read ({e})", advice=advice) from e
        if len(text) > LIMIT_BYTES:
            raise DataError(f"{self.certificate} has more than {LIMIT_BYTES} bytes", advice=advice)
        if "-----BEGIN CERTIFICATE-----" not in text:
            raise DataError(f"{self.certificate} holds no certificate", advice="Pass a PEM file: BEGIN CERTIFICATE.")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError) as e:
            raise DataError(f"{self.certificate} holds a damaged certificate ({one_line(e)})", advice=advice) from e
        return context

    def private_key(self) -> Any:
        """The EC key of `key`.

        Raises:
            DataError: No such file, no private key, or one of another kind.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_ssh_private_key

        advice = "Make one: ssh-keygen -t ecdsa -b 384 -N '' -f device-key"
        try:
            with open(str(self.key), "rb") as file:
                found = load_ssh_private_key(file.read(1 << 16), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as e:
            raise DataError(
                f"{self.key} is no private key of OpenSSH without passphrase ({one_line(e)})", advice=advice
            ) from e
        if not isinstance(found, EllipticCurvePrivateKey):
            raise DataError(f"{self.key} is no EC key, and Flower takes no other kind", advice=advice)
        return found


def parse_link(url: str, *, insecure: bool, certificate: str | None, key: str | None) -> Link:
    """The link of what a user writes.

    Raises:
        OptionsError: No address, or http:// without --insecure.
        DataError: A file of it cannot be read.
    """
    if "@" in url:  # no message repeats it: messages are kept in logs
        raise OptionsError("the address of the server holds a user name or a password", advice=f"Leave it out. {FORM}")
    scheme, separator, address = url.rpartition("://")
    host, port = split_address(address.removesuffix("/"), url)
    if separator and scheme not in ("http", "https"):
        raise OptionsError(f"{url!r} is not the address of a server", advice=FORM)
    if scheme == "http" and not insecure:
        raise OptionsError(
            f"{url} is plain HTTP: whoever is on the way can read and change the weights",
            advice="Pass https://, or --insecure on a network that you trust.",
        )
    if scheme == "https" and insecure:
        raise OptionsError(f"{url} is given, and so is --insecure", advice="Leave out one of them.")
    files = [None if name is None else os.path.abspath(os.path.expanduser(name)) for name in (certificate, key)]
    link = Link(f"{host}:{port}", insecure, *files)
    link.root_certificates()
    if link.key:
        link.private_key()
    return link


def split_address(address: str, written: str = "") -> tuple[str, str]:
    """(host, port) of HOST:PORT or HOST, whose port is Flower's; an IPv6 address keeps its brackets.

    Args:
        written: What the user wrote, for the message.

    Raises:
        OptionsError: It is no such address.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|\w[\w.-]*)(?::(\d{1,5}))?", address)
    if match is None or not 0 < int(match[2] or PORT) < 65536:
        raise OptionsError(f"{written or address!r} is not the address of a server", advice=FORM)
    return match[1], match[2] or str(PORT)
