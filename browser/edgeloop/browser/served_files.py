"""The files that the page's server gives out: the built page, compressed, and a bundle's own files.

`npm run build` compresses the page's files once and lists them in `files.json` (web/delivery.ts). What lies below
`assets/` has a hash in its name, so a browser may keep it for good; everything else it asks for again.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgeloop.hashes import digest_of

FILES = "files.json"
HASHED = "assets/"
CODINGS = {"br": "br", "gzip": "gz"}  # of HTTP, the best first: the end of the file's name
TYPES = {  # not from the machine's own mime.types: some map .js to text/plain, which a module script refuses
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".md": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFile:
    """A file of an address.

    Attributes:
        path: The file as it is; with `forms`, only the compressed forms beside this name exist.
        forms: Ends of the names of the compressed forms: "gz", "br".
        tag: What changes with the contents; None: size and time of the file say it at each request.
        immutable: Its address never has other contents.
        size_bytes: Uncompressed; None: the file says it.
    """

    path: Path
    forms: tuple[str, ...] = ()
    tag: str | None = None
    immutable: bool = False
    size_bytes: int | None = None

    @property
    def content_type(self) -> str:
        return TYPES.get(self.path.suffix, "application/octet-stream")

    def exists(self) -> bool:
        """Asked at each request: the file may have gone since the start, or a link may have come."""
        stored = self._stored(None)
        return stored.resolve() == stored and stored.is_file()

    def coding(self, accepted: str) -> str | None:
        """The best coding of those that a request's Accept-Encoding names."""
        wanted = {part.partition(";")[0].strip() for part in accepted.lower().split(",") if not _is_refused(part)}
        return next((coding for coding, end in CODINGS.items() if end in self.forms and coding in wanted), None)

    def etag(self, coding: str | None) -> str:
        """Of these bytes: a compressed form has its own."""
        tag = self.tag
        if tag is None:
            found = self.path.stat()
            tag = f"{found.st_mtime_ns:x}-{found.st_size:x}"
        return f'"{tag}-{coding}"' if coding else f'"{tag}"'

    def size(self, coding: str | None) -> int:
        """Bytes that `open` gives."""
        if coding is None and self.size_bytes is not None:
            return self.size_bytes
        return self._stored(coding).stat().st_size

    def open(self, coding: str | None) -> BinaryIO:
        """Its bytes in this coding; None: unpacked, while they are read, where only compressed forms exist."""
        if coding is None and self.forms:
            return io.BufferedReader(gzip.open(self._stored("gzip")))
        return self._stored(coding).open("rb")

    def _stored(self, coding: str | None) -> Path:
        if coding is None and not self.forms:
            return self.path
        return self.path.with_name(f"{self.path.name}.{CODINGS[coding or 'gzip']}")


class ServedSite:
    """All that a server gives out.

    Args:
        index: The page itself, at the root.
        files: All others, by their addresses, which begin with a slash.
    """

    def __init__(self, index: bytes, files: Mapping[str, ServedFile]) -> None:
        self.index, self.files = index, files
        self.tag = f'"{digest_of(index)[:32]}"'


def page_files(folder: Path) -> dict[str, ServedFile]:
    """The built files of the page below `folder`, by their names; the list itself too, for the service worker."""
    listed = json.loads((folder / FILES).read_bytes())["files"]
    files = {
        name: ServedFile(
            path=folder / name,
            forms=tuple(row["forms"]),
            tag=row["sha256"][:32],
            immutable=name.startswith(HASHED),
            size_bytes=row["bytes"],
        )
        for name, row in listed.items()
    }
    return {**files, FILES: ServedFile(path=folder / FILES)}


def _is_refused(part: str) -> bool:
    """Whether a part of Accept-Encoding says `;q=0`."""
    weight = part.partition(";")[2].replace(" ", "")
    return weight.startswith("q=0") and not weight.strip("q=0.")
