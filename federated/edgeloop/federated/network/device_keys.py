"""The public keys of the devices that may take part: a folder with a file NAME.pub of each."""

from __future__ import annotations

from pathlib import Path

from edgeloop.errors import DataError, EdgeloopError, one_line

MAKE = "Make a key on the device: ssh-keygen -t ecdsa -b 384 -N '' -f device-key. Copy device-key.pub to the server."
LIMIT_BYTES = 1 << 14  # of one file


def read_device_keys(folder: Path) -> dict[bytes, str]:
    """The name of each key, by the key as Flower writes it: {key: "pi-1"} of a file pi-1.pub.

    Raises:
        DataError: No such folder, or a file that is no EC public key.
    """
    if not folder.is_dir():
        raise DataError(f"the folder of device keys {folder} does not exist", advice=f"Make it. {MAKE}")
    return {public_key(path): path.stem for path in sorted(folder.glob("*.pub"))}


def readable_device_keys(folder: Path) -> tuple[dict[bytes, str], dict[str, str]]:
    """The same of a folder that may change meanwhile; of each file that is none, by name, the reason."""
    found, wrong = dict[bytes, str](), dict[str, str]()
    for path in sorted(folder.glob("*.pub")):
        try:
            found[public_key(path)] = path.stem
        except EdgeloopError as e:
            wrong[path.stem] = e.clause
    return found, wrong


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
