"""Which versions of a model a registry offers: one file that a publisher replaces whole and that devices poll.

    REGISTRY/NAME/index.json    which versions there are, and what they are also called
    REGISTRY/NAME/0003/         a bundle; TensorFlow Serving reads folders with such names, too

Nobody signs the index, so it decides nothing but where to look: what a version is, its signed manifest says.
Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeloop.bundle import LARGEST
from edgeloop.canonical import canonical_json, read_json
from edgeloop.errors import DataError, ModelError

INDEX = "index.json"
FORMAT = "edgeloop-index/1"
LIMIT_BYTES = 1 << 20  # some ten thousand versions
LATEST = "latest"  # the highest version; no publisher sets it
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # a name of a model or an alias: the same in a path and a URL
SHA256 = re.compile(r"[0-9a-f]{64}")
EXPECTED = "Expected the index.json that edgeloop publish writes."


@dataclass(frozen=True)
class IndexedVersion:
    """A version that is offered, and the hash of its manifest."""

    version: int
    manifest_sha256: str

    @property
    def folder(self) -> str:
        return version_folder(self.version)


@dataclass(frozen=True)
class VersionIndex:
    """The versions of the model `name`: {version: sha256 of its manifest}, and {alias: version}."""

    name: str
    versions: Mapping[int, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)

    def find(self, alias: str = LATEST) -> IndexedVersion:
        """What is offered under this alias.

        Raises:
            DataError: No version is, or there is no such alias.
        """
        version = max(self.versions, default=None) if alias == LATEST else self.aliases.get(alias)
        if version is None:
            have = ", ".join(sorted((LATEST, *self.aliases)))
            raise DataError(
                f"the registry offers no version of {self.name} under the alias {alias!r}",
                advice=f"Publish one, or choose one of: {have}.",
            )
        return IndexedVersion(version, self.versions[version])

    def to_bytes(self) -> bytes:
        versions = {str(version): {"manifest_sha256": sha256} for version, sha256 in self.versions.items()}
        return canonical_json(
            {"format": FORMAT, "name": self.name, "versions": versions, "aliases": dict(self.aliases)}
        )


def version_folder(version: int) -> str:
    """The name of its folder, of four digits at least."""
    return f"{version:04d}"


def parse_index(data: bytes) -> VersionIndex:
    """An index that came from elsewhere. Unknown keys are ignored.

    Raises:
        DataError: It is none, of another format, or contradicts itself.
    """
    try:
        raw = read_json(data, INDEX, LIMIT_BYTES)
    except ModelError as e:
        raise DataError(e.found, advice=EXPECTED) from e
    if raw.get("format") != FORMAT:
        raise DataError(
            f"{INDEX} has the format {raw.get('format')!r}, and edgeloop reads {FORMAT!r}", advice="Update edgeloop."
        )
    try:
        versions = {_version(key): _sha256(each["manifest_sha256"]) for key, each in raw["versions"].items()}
        aliases = {str(alias): version for alias, version in raw["aliases"].items()}
        name = raw["name"]
        if not isinstance(name, str) or len(versions) != len(raw["versions"]):
            raise ValueError("a name that is no text, or a version twice")
        if not all(type(version) is int and version in versions for version in aliases.values()):
            raise ValueError("an alias of a version that is not there")
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise DataError(f"{INDEX} does not follow the format ({type(e).__name__}: {e})", advice=EXPECTED) from e
    return VersionIndex(name, versions, aliases)


def _version(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and 0 < int(text) <= LARGEST):
        raise ValueError(f"{text[:40]!r} is no version")
    return int(text)


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise ValueError(f"{str(value)[:80]!r} is no sha256 in hex")
    return value
