"""The models that a device has, by their hash: a server need not send one again.

FOLDER/SHA256/model.tflite, manifest.json, manifest.json.sig       the latter two where the server sent them
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from edgeloop.atomic import write_file
from edgeloop.bundle import MANIFEST, SIGNATURE, Manifest, parse_manifest
from edgeloop.errors import IntegrityError, ModelError
from edgeloop.hashes import digest_of
from edgeloop.leftovers import temporary_folder
from edgeloop.registry.signatures.verify import verify

MODEL = "model.tflite"
KEPT = 4  # models; the one that was not used for longest goes first
AGAIN = "Run the round again."


class Models(Protocol):
    """The models of one device: a `ModelStore`, or those of a device that keeps none."""

    def hashes(self) -> list[str]: ...
    def take(self, sha256: str, sent: Mapping[str, bytes]) -> tuple[bytes, Manifest | None]: ...


@dataclass(frozen=True)
class ModelStore:
    """The models of one device.

    Attributes:
        folder: Where they lie; a device has one of its own.
        signers: An allowed_signers file: a model counts only with a manifest that one of these signed and that lists
            it. None: a model of anybody.
    """

    folder: str
    signers: str | None = None

    def hashes(self) -> list[str]:
        """Of all models here, last used first."""
        try:
            found = [name for name in os.listdir(self.folder) if len(name) == 64 and self._has(name)]
        except OSError:
            return []
        return sorted(found, key=lambda name: os.stat(self._path(name, MODEL)).st_mtime, reverse=True)

    def take(self, sha256: str, sent: Mapping[str, bytes]) -> tuple[bytes, Manifest | None]:
        """The model of that hash, from what the server `sent` (MODEL, MANIFEST, SIGNATURE), else from the folder.

        Raises:
            ModelError: It is neither here nor sent.
            IntegrityError: Another hash; no signature of a signer, or a manifest that does not list the model.
            WriteError: The folder cannot be written.
        """
        model = sent.get(MODEL) or self._read(sha256, MODEL)
        if model is None:
            raise ModelError(
                f"this device does not hold the model {sha256[:12]}…", advice="Send the model with the message."
            )
        check_hash(model, sha256)
        data, signature = (sent.get(name) or self._read(sha256, name) for name in (MANIFEST, SIGNATURE))
        manifest = self._manifest(sha256, data, signature)
        # what is refused above takes no place, and the place of nothing
        for name in (SIGNATURE, MANIFEST, MODEL):  # the model last: it says that the others are there
            if name in sent and sent[name] != self._read(sha256, name):
                write_file(self._path(sha256, name), sent[name])
        self._prune(sha256)
        os.utime(self._path(sha256, MODEL))
        return model, manifest

    def _manifest(self, sha256: str, data: bytes | None, signature: bytes | None) -> Manifest | None:
        if self.signers is not None:
            if data is None:
                raise IntegrityError(
                    "the model arrived without a signed manifest", advice="Sign the bundle that the rounds train."
                )
            with temporary_folder() as folder:  # OpenSSH reads a file
                if signature is not None:
                    write_file(os.path.join(folder, SIGNATURE), signature)
                verify(self.signers, folder, data)
        if data is None:
            return None
        manifest = parse_manifest(data)
        if sha256 not in [entry.sha256 for entry in manifest.files.values()]:
            raise IntegrityError(
                f"the manifest of {manifest.name!r} does not list the model {sha256[:12]}…",
                advice="Train the bundle as it was signed.",
            )
        return manifest

    def _prune(self, spared: str) -> None:
        for name in [name for name in self.hashes() if name != spared][KEPT - 1 :]:
            shutil.rmtree(self._path(name), ignore_errors=True)

    def _has(self, sha256: str) -> bool:
        return os.path.isfile(self._path(sha256, MODEL))

    def _path(self, sha256: str, *name: str) -> str:
        if len(sha256) != 64 or not sha256.isalnum():
            raise IntegrityError(f"{sha256[:80]!r} is no sha256", advice=AGAIN)
        return os.path.join(self.folder, sha256, *name)

    def _read(self, sha256: str, name: str) -> bytes | None:
        try:
            with open(self._path(sha256, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None


def check_hash(model: bytes, sha256: str) -> None:
    """See that the model's bytes are those the server hashed.

    Raises:
        IntegrityError: They are not.
    """
    found = digest_of(model)
    if found != sha256:
        raise IntegrityError(
            f"the model arrived with sha256 {found[:12]}…, and the server sent {sha256[:12]}…", advice=AGAIN
        )
