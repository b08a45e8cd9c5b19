"""proof.json in; its records of parity out, checked: the file may come from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from edgeloop.bundle import MANIFEST_SHA256, PROOF, Bundle
from edgeloop.canonical import read_json
from edgeloop.errors import IntegrityError, ModelError
from edgeloop.runtime.parity.compare import Parity

# What each field may hold, by its annotation; a bool is an int to Python, and no number here.
KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


def read_proof(bundle: Bundle) -> tuple[Parity, ...]:
    """The records of a bundle's proof.json; none where it carries no proof. Fields of later versions are ignored.

    Raises:
        IntegrityError: It belongs to another manifest, or the manifest names a proof that is not there.
        ModelError: It breaks the format.
    """
    file = bundle.file(PROOF)
    if not file.is_file():
        if bundle.manifest.proof_sha256 is not None:  # without it a limit on accuracy would let everything pass
            raise IntegrityError(f"{bundle.path} lacks {PROOF}", advice="Fetch the bundle again.")
        return ()
    raw = read_json(file.read_bytes(), PROOF)
    if raw.get(MANIFEST_SHA256) != bundle.manifest_sha256:
        raise IntegrityError(
            f"{file} belongs to another manifest", advice="Fetch the bundle again, or delete that file."
        )
    try:
        # the first bundles' records state neither the samples, which were those of the evaluation, nor the device
        older = {"samples": raw["evaluation"]["samples"], "runtime_version": None, "device": "local"}
        return tuple(_record({**older, **row}) for row in raw["parity"])
    except (KeyError, TypeError, ValueError) as e:
        raise ModelError(
            f"{file} does not follow the format ({type(e).__name__}: {e})",
            advice="Fetch the bundle again, or delete that file.",
        ) from e


def _record(row: Mapping[str, Any]) -> Parity:
    for field in fields(Parity):
        kind, _, optional = str(field.type).partition(" | ")
        value = row[field.name] if field.default is MISSING else row.get(field.name)
        right = isinstance(value, KINDS[kind]) and isinstance(value, bool) == (kind == "bool")
        if not right and not (optional and value is None):
            raise ValueError(f"{field.name} is {value!r}, expected {field.type}")
    return Parity(**{field.name: row[field.name] for field in fields(Parity) if field.name in row})
