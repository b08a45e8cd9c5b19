"""The public keys of the devices that may take part: a folder with a file NAME.pub of each."""

from __future__ import annotations

import os
from pathlib import Path

from edgeloop.errors import DataError, EdgeloopError, one_line

MAKE = "Make a key on the device: ssh-keygen -t ecdsa -b 384 -N '' -f device-key. Copy device-key.pub to the server."
LIMIT_BYTES = 1 << 14  # of one file


def read_device_keys(folder: Path) -> dict[bytes, str]:
    """The name of each key, by the key as Flower writes it: {key: "pi-1"} of a file pi-1.pub.

    Raises:
        DataError: No such folder, one that cannot be read, or a file that is no EC public key.
    """
    try:
        return {public_key(path): path.stem for path in _files(folder)}
    except FileNotFoundError as e:
        raise DataError(f"the folder of device keys {folder} does not exist", advice=f"Make it. {MAKE}") from e
    except OSError as e:
        raise DataError(
            f"the folder of device keys {folder} cannot be read ({one_line(e)})", advice="Allow it to be read."
        ) from e


def readable_device_keys(folder: Path) -> tuple[dict[bytes, str], dict[str, str]]:
    """The same of a folder that may change meanwhile; of each file that is none, by name, the reason.

    Raises:
        OSError: The folder cannot be read.
    """
    found, wrong = dict[bytes, str](), dict[str, str]()
    for path in _files(folder):
        try:
            found[public_key(path)] = path.stem
        except EdgeloopError as e:
            wrong[path.stem] = e.clause
    return found, wrong


def _files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:  # Path.glob finds nothing where it may not read
        return sorted(folder / entry.name for entry in entries if entry.name.endswith(".pub"))


def public_key(path: Path) -> bytes:
    """The key in a .pub file of OpenSSH, as Flower writes it.

    Raises:
        DataError: It is no EC public key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes, uses_nist_ec_curve

    try:
        with path.open("rb") as file:
            key = load_ssh_public_key(file.read(LIMIT_BYTES))
    except (OSError, ValueError, UnsupportedAlgorithm) as e:
        raise DataError(f"{path} is no public key of OpenSSH ({one_line(e)})", advice=MAKE) from e
    if not (isinstance(key, EllipticCurvePublicKey) and uses_nist_ec_curve(key)):
        raise DataError(f"{path} is no EC key, and Flower takes no other kind", advice=MAKE)
    return bytes(public_key_to_bytes(key))
