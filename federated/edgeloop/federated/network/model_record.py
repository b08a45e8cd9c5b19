"""A model as a server sends it to devices (docs/federated-protocol.md)."""

from __future__ import annotations

from pathlib import Path

from edgeloop.bundle import MANIFEST, SIGNATURE
from edgeloop.hashes import digest_of


def model_record(file: Path) -> dict[str, bytes | str]:
    """The keys `model` and `sha256` of `config`; for the trainable file of a bundle also `manifest`, and `signature` if
    it is signed."""
    model = file.read_bytes()
    found: dict[str, bytes | str] = {"model": model, "sha256": digest_of(model)}
    for key, name in (("manifest", MANIFEST), ("signature", SIGNATURE)):
        if file.with_name(name).is_file():
            found[key] = file.with_name(name).read_bytes()
    return found
