"""What a gateway is given: where the federation is, and who its tabs are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import OptionsError
from edgeloop.federated.device.connection.link import Link, parse_link

MOST_TABS = 16  # each holds one of the page's 64 connections while it waits for work


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """One SuperLink, and a place in it for each tab.

    Attributes:
        url: HOST:PORT or https://HOST:PORT of the SuperLink.
        keys: EC private keys that the owner of the SuperLink registered; each is the node of one tab at a time.
        certificate: The root certificates (PEM) that the server's own must lead to; None: those of the system.
        insecure: Plain HTTP to the SuperLink.
        tabs: Without keys, on a SuperLink that takes nodes without: how many tabs may take part at the same time.
    """

    url: str
    keys: tuple[Path, ...] = ()
    certificate: Path | None = None
    insecure: bool = False
    tabs: int | None = None

    def __post_init__(self) -> None:
        if self.keys and self.tabs is not None:
            raise OptionsError(
                f"--tabs {self.tabs} is given, and so are {len(self.keys)} keys",
                advice="Leave out --tabs: there is one tab for each key.",
            )
        if not self.keys and self.tabs is None:
            raise OptionsError(
                "--federate needs a key for each tab, and none is given",
                advice="Pass --key FILE for each tab, or --tabs N on a server without keys.",
            )
        if len(set(self.keys)) < len(self.keys):
            raise OptionsError("a key is given twice", advice="Give each tab a key of its own: N tabs are N votes.")
        if not 1 <= self.places <= MOST_TABS:
            raise OptionsError(f"{self.places} tabs are to take part", advice=f"Expected 1 to {MOST_TABS}.")

    @property
    def places(self) -> int:
        """How many tabs may take part at the same time."""
        return len(self.keys) or self.tabs or 0

    def links(self) -> tuple[Link, ...]:
        """The way of each place to the SuperLink.

        Raises:
            OptionsError: No address, or http:// without --insecure.
            DataError: A key or a certificate cannot be read.
        """
        certificate = None if self.certificate is None else str(self.certificate)
        keys = [str(key) for key in self.keys] if self.keys else [None] * self.places
        return tuple(parse_link(self.url, insecure=self.insecure, certificate=certificate, key=key) for key in keys)
