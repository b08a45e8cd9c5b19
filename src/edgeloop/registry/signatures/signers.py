"""An allowed_signers file, read as a person wrote it.

Source: https://man.openbsd.org/ssh-keygen (ALLOWED SIGNERS); key blobs: verify.py
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeloop.errors import DataError
from edgeloop.registry.signatures.verify import LIMIT_BYTES, NAMESPACE, is_key

KEY_TYPES = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
FORM = 'Expected lines like: me@example.org namespaces="edgeloop-bundle" ssh-ed25519 AAAA...'
WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')  # an option's value may hold blanks between quotes


def read_signers(path: Path) -> bytes:
    """The bytes of an allowed_signers file, checked line by line.

    Raises:
        DataError: Not readable, a private key, a line that is none, no key at all, or none for edgeloop's bundles.
    """
    try:
        data = path.read_bytes()[: LIMIT_BYTES + 1]
        text = data.decode()
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(
            f"{path} cannot be read ({getattr(e, 'strerror', None) or 'it is not text'})", advice=FORM
        ) from e
    if len(data) > LIMIT_BYTES:
        raise DataError(f"{path} has more than {LIMIT_BYTES} bytes", advice=FORM)
    if "PRIVATE KEY" in text:
        raise DataError(f"{path} holds a PRIVATE key", advice=f"Pass public keys only. {FORM}")
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    keys = [_check(path, n, line) for n, line in lines if line and not line.startswith("#")]
    if not any(keys):
        found = "lists no key" if not keys else f"lists no key for the namespace {NAMESPACE}"
        raise DataError(f"{path} {found}", advice=FORM)
    return data


def _check(path: Path, number: int, line: str) -> bool:
    """Whether the line's key may sign bundles; raises where it is no line of an allowed_signers file."""
    words = WORD.findall(line)
    at = next((i for i, word in enumerate(words) if word in KEY_TYPES), None)
    if at is None or at + 1 == len(words):
        raise DataError(f"{path}, line {number}, has no key of a type that OpenSSH signs with", advice=FORM)
    if at == 0:
        raise DataError(f"{path}, line {number}, has no signer's name before the key, as in a .pub file", advice=FORM)
    if at > 2 or not is_key(words[at], words[at + 1]):
        raise DataError(f"{path}, line {number}, has a damaged key or spaces before it", advice=FORM)
    options = words[1] if at == 2 else ""
    namespaces = re.search(r'namespaces="([^"]*)"', options, re.IGNORECASE)
    return namespaces is None or NAMESPACE in namespaces[1].split(",") or "*" in namespaces[1]
