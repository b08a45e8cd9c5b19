"""Who may sign what runs here. Signers are enrolled once; from then on an unsigned bundle is refused.

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import os
import re

from edgeloop.atomic import replace_file, sweep
from edgeloop.edge.on_device.releases.lock import locked
from edgeloop.errors import IntegrityError, OptionsError
from edgeloop.registry.signatures.verify import LIMIT_BYTES, is_key

# principals, options, key type, key, comment
SIGNER = re.compile(r"\S.*?\s(?P<type>(?:ssh|ecdsa|sk)-[\w@.-]+)\s+(?P<key>[A-Za-z0-9+/]+=*)(?:\s.*)?")


def signers_file(home: str) -> str:
    return os.path.join(home, "trust", "allowed_signers")


def enrolled(home: str) -> bool:
    return os.path.lexists(signers_file(home))


def enroll(home: str, signers: bytes) -> None:
    """Take bundles of these signers only (an OpenSSH allowed_signers file), from now on.

    Raises:
        OptionsError: It names no signer, or a line is damaged: no one could replace it later.
        IntegrityError: Others are enrolled already.
    """
    _check_signers(signers)
    file = signers_file(home)
    with locked(os.path.dirname(file), "enrolled signers"):
        if not enrolled(home):
            sweep(os.path.dirname(file))
            replace_file(file, signers)
            return
        with open(file, "rb") as old:
            if old.read() != signers:
                raise IntegrityError(
                    f"{file} holds other signers, and a device is enrolled only once",
                    advice="To replace them, log in to the device and delete that file.",
                )


def _check_signers(signers: bytes) -> None:
    lines = signers[:LIMIT_BYTES].decode(errors="replace").splitlines()
    lines = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not lines or len(signers) > LIMIT_BYTES:
        raise OptionsError(
            f"the file has {len(lines)} signers in {len(signers)} bytes",
            advice=f"Expected an allowed_signers file of 1 signer or more, at most {LIMIT_BYTES} bytes.",
        )
    for line in lines:
        match = SIGNER.fullmatch(line)
        if match is None or not is_key(match["type"], match["key"]):
            raise OptionsError(
                f"{line[:60]!r} is not a line of an allowed_signers file", advice="Expected: NAME KEYTYPE KEY."
            )
