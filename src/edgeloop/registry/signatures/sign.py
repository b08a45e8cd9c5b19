"""A bundle's signature: made and checked by OpenSSH, which devices have. Keys are files that only ssh-keygen reads.

Source: https://man.openbsd.org/ssh-keygen (-Y sign, find-principals, verify; ALLOWED SIGNERS)
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edgeloop.atomic import write_file
from edgeloop.bundle import MANIFEST, SIGNATURE, Bundle
from edgeloop.errors import DataError, MissingExtra, last_line
from edgeloop.processes.command import run_command
from edgeloop.registry.signatures.verify import NAMESPACE, verify

TIMEOUT_S = 30.0  # a key in an agent may wait for a finger on its button


def sign_bundle(bundle: Bundle, key: str | Path) -> Path:
    """Sign a bundle's manifest, and so every file it lists.

    `key` is a private OpenSSH key file, or a public one whose private half an agent holds.

    Returns:
        The file that was written, manifest.json.sig.

    Raises:
        DataError: The key cannot be used: no such file, readable by others, behind a passphrase that no agent knows.
        MissingExtra: No ssh-keygen here.
        WriteError: The bundle's folder may not be written to.

    Example:
        >>> sign_bundle(read_bundle("m/"), Path.home() / ".ssh" / "id_ed25519")
    """
    write_file(bundle.file(SIGNATURE), signature_of(bundle.file(MANIFEST).read_bytes(), Path(key)))
    return bundle.file(SIGNATURE)


def signature_of(content: bytes, key: Path) -> bytes:
    """The signature of `content`, as it lies beside a manifest.

    Raises:
        DataError, MissingExtra: As `sign_bundle`.
    """
    # without these ssh-keygen asks for a passphrase, and takes the first line of the content for it
    never_ask = {**os.environ, "SSH_ASKPASS": "false", "SSH_ASKPASS_REQUIRE": "force"}
    command: list[str | Path] = [need_ssh_keygen(), "-Y", "sign", "-f", key, "-n", NAMESPACE]
    try:
        signed = run_command(command, content, timeout_s=TIMEOUT_S, env=never_ask)
    except TimeoutError as e:
        raise _refusal(key, str(e)) from e
    if not signed.status.ok or not signed.out.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise _refusal(key, signed.err.decode(errors="replace"))
    return signed.out


def verify_signature(bundle: Bundle, signers: Path) -> str:
    """Who signed this manifest, by the name that the allowed_signers file `signers` gives that key: as a device does.

    Raises:
        IntegrityError: No signature, one of another manifest, or by nobody who is listed and valid now; no ssh-keygen.
    """
    return verify(str(signers), str(bundle.path), bundle.file(MANIFEST).read_bytes())


def need_ssh_keygen() -> str:
    """Where ssh-keygen is.

    Raises:
        MissingExtra: Not here.
    """
    program = shutil.which("ssh-keygen")
    if program is None:
        raise MissingExtra("OpenSSH's ssh-keygen is not installed", advice="Run: apt-get install openssh-client")
    return program


def _refusal(key: Path, words: str) -> DataError:
    """`words`: what ssh-keygen said."""
    if not key.is_file():
        found, advice = "the file does not exist", "Make a key: ssh-keygen -t ed25519 -f KEY"
    elif "passphrase" in words:
        found, advice = "it has a passphrase, and edgeloop never asks for one", "Load the key first: ssh-add KEY"
    elif "UNPROTECTED" in words:
        found, advice = "other users can read it", "Run: chmod 600 KEY"
    else:
        found, advice = last_line(words), "Expected an OpenSSH key file."
    return DataError(f"cannot sign with {key}: {found}", advice=advice)
