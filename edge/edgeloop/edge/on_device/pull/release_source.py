"""Where a device fetches releases from: a folder of a registry, here or on a web server. Both are read the same way.

What comes from there is hostile until its signature was checked: every read is bounded in size and in time.
Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlsplit

from edgeloop.errors import OptionsError
from edgeloop.registry.versions.version_index import LATEST, PLAIN

URL = ("http://", "https://")
# of any scheme or none; an @ may end a name or password, which may hold / or # as it is: behind a colon, inside a
# segment, or before what looks like a host
WITH_USER = re.compile(r"[^/]*://(@|[^/]*:.*@|.*[^/]@|.*@[^/]*[.:])|(?![^/]*://)[^/]*:.*@", re.DOTALL)
LEAVE_OUT = "Leave it out: releases are signed, and every user of the device could read it."
ENCODE = f"{LEAVE_OUT} If the @ belongs to the path, write it as %40."
EXPECTED = (
    "Expected the folder or URL of one model in a registry, such as https://host/models/NAME or /mnt/models/NAME."
)


class SourceFile(Protocol):
    """A file of the source, read from any offset on."""

    def read(self, offset: int, size: int) -> bytes:
        """At least one and at most `size` bytes from there, or all that is left."""


class ReleaseSource(Protocol):
    """A model's folder in a registry. Every method raises DeviceError where the source does not answer well.

    Attributes:
        retry_after_s: How long a server that refused the last request asks to be left alone; None: it did not say.
    """

    retry_after_s: float | None

    def index(self, seen: Hashable) -> tuple[bytes, Hashable] | None:
        """index.json, and what to pass as `seen` the next time; None: it has not changed since."""

    def small_file(self, path: str, limit_bytes: int) -> bytes:
        """A whole file. Raises IntegrityError where it is larger than `limit_bytes`."""

    def open(self, path: str, size: int) -> AbstractContextManager[SourceFile]:
        """A file of exactly `size` bytes; what the source would send beyond that is never read."""


@dataclass(frozen=True)
class SourceAddress:
    """`https://host/models/NAME#ALIAS`, or a folder, taken apart.

    Raises:
        OptionsError: Neither; a name or an alias that no registry has; a password in it.
    """

    text: str

    def __post_init__(self) -> None:
        """No message repeats an address that may hold a password or a token: messages are kept in logs."""
        if WITH_USER.match(self.text):
            raise OptionsError("the address of --follow holds a user name or a password", advice=ENCODE)
        if self.is_url and "?" in self.text:
            raise OptionsError("--follow has a query: what follows the question mark", advice=LEAVE_OUT)
        try:
            host = urlsplit(self.base).hostname if self.is_url else "this machine"
        except ValueError:  # its text quotes the address
            raise OptionsError("--follow names a URL that cannot be read", advice=EXPECTED) from None
        if not host or not PLAIN.fullmatch(self.name) or not PLAIN.fullmatch(self.alias):
            raise OptionsError(f"--follow is {self.text.partition('?')[0]!r}", advice=EXPECTED)

    @property
    def is_url(self) -> bool:
        return self.text.lower().startswith(URL)

    @property
    def base(self) -> str:
        """Without the alias, and without a slash at its end."""
        return self.text.partition("#")[0].rstrip("/")

    @property
    def alias(self) -> str:
        return self.text.partition("#")[2] or LATEST

    @property
    def name(self) -> str:
        """The model's, and so the slot's."""
        path = urlsplit(self.base).path if self.is_url else self.base
        last = path.rpartition("/")[2]
        return unquote(last) if self.is_url else last
