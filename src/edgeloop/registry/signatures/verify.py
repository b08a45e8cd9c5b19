"""Who signed a manifest: OpenSSH verifies, so a device needs no cryptography of Python's.

Python 3.9 syntax, the standard library and OpenSSH: `ssh-keygen -Y find-principals`, then `ssh-keygen -Y verify`.
Whether a signer has expired goes by this machine's clock.

Sources
    https://man.openbsd.org/ssh-keygen (ALLOWED SIGNERS)
    https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig
"""

from __future__ import annotations

import base64
import binascii
import os
import shutil
import struct
import time
from typing import TYPE_CHECKING

from edgeloop.bundle import SIGNATURE
from edgeloop.errors import IntegrityError

if TYPE_CHECKING:
    from edgeloop.processes.command import CommandOutput

NAMESPACE = "edgeloop-bundle"
TIMEOUT_S = 60.0  # an emulated device takes half a second
LIMIT_BYTES = 64 << 10  # of signers and of a signature: OpenSSH's are some 300 bytes
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"


def ssh_keygen() -> str | None:
    """The verifier's path; None: this device cannot verify."""
    return shutil.which("ssh-keygen")


def verify(signers: str, folder: str, manifest: bytes) -> str:
    """Which signer of the file `signers` signed these bytes of a manifest, by the signature beside it in `folder`.

    Raises:
        IntegrityError: No signature, a bad one, one of nobody who is listed or no longer valid; or no ssh-keygen.
    """
    signature = os.path.join(folder, SIGNATURE)
    if not os.path.isfile(signature):
        raise IntegrityError(
            f"the bundle has no {SIGNATURE}: it is not signed", advice="Sign it: edgeloop convert ... --sign KEY"
        )
    _check_armor(signature)
    signed = ["-s", signature, "-f", signers]
    found = _ssh_keygen(["find-principals", *signed])
    if not found.status.ok:
        raise IntegrityError(
            f"{SIGNATURE} is not by a known signer ({_first_line(found.err)})",
            advice=f"Sign the bundle with a key that is listed{_on_this_day(signers)}.",
        )
    for principal in found.out.decode(errors="replace").splitlines():
        found = _ssh_keygen(["verify", "-n", NAMESPACE, "-I", principal, *signed], manifest)
        if found.status.ok:
            return principal
    raise IntegrityError(
        f"{SIGNATURE} is not a valid signature of this manifest ({_first_line(found.err)})",
        advice="Fetch the bundle again.",
    )


def _on_this_day(signers: str) -> str:
    """Where keys are valid for a time, the day that this machine's clock has: a device may wake up in 2001."""
    with open(signers, "rb") as file:
        dated = b"valid-" in file.read(LIMIT_BYTES)
    return (
        f" and valid on {time.strftime('%Y-%m-%d')}, the day by the clock of the machine that verifies" if dated else ""
    )


def is_key(kind: str, text: str) -> bool:
    """Whether base64 `text` is a public key: it begins with its own type (RFC 4253, 6.6), and goes on."""
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    head = struct.pack(">I", len(kind)) + kind.encode()
    return key.startswith(head) and len(key) > len(head) + 32


def _check_armor(file: str) -> None:
    """One signature has one file: ssh-keygen skips white space and what follows the end, and a change there is one."""
    with open(file, "rb") as opened:
        text = opened.read(LIMIT_BYTES).decode("ascii", errors="replace")
    lines = text.split("\n")
    blob = "".join(lines[1:-2])
    try:
        whole = base64.b64encode(base64.b64decode(blob, validate=True)).decode() == blob
    except (binascii.Error, ValueError):
        whole = False
    width = max(1, len(lines[1])) if len(lines) > 1 else 1
    wrapped = [blob[start : start + width] for start in range(0, len(blob), width)]
    if not whole or lines != [BEGIN, *wrapped, END, ""]:
        raise IntegrityError(
            f"{SIGNATURE} is damaged", advice="Expected what ssh-keygen -Y sign writes; fetch the bundle again."
        )


def _ssh_keygen(arguments: list[str], data: bytes = b"") -> CommandOutput:
    """`ssh-keygen -Y ARGUMENTS`."""
    from edgeloop.processes.command import run_command  # a device imports this module also where nothing is signed

    program = ssh_keygen()
    if program is None:
        raise IntegrityError(
            "ssh-keygen is not installed, so no signature can be verified", advice="Install openssh-client."
        )
    limited = {"PATH": os.path.dirname(program), "LC_ALL": "C"}
    if "TZ" in os.environ:  # dates of signers without a zone are local time
        limited["TZ"] = os.environ["TZ"]
    try:
        return run_command([program, "-Y", *arguments], data, timeout_s=TIMEOUT_S, env=limited)
    except TimeoutError as e:
        raise IntegrityError(str(e), advice="Try again.") from e


def _first_line(words: bytes) -> str:
    """Where a key has expired, ssh-keygen says so first and last only that nothing matched."""
    lines = words.decode(errors="replace").strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else "no reason given"
