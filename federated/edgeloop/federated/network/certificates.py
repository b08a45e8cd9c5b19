"""Certificates of a server: made by an authority of its own, and checked as a device will check them."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeloop.atomic import write_file
from edgeloop.errors import DataError, IntegrityError, OptionsError, one_line
from edgeloop.extras import need
from edgeloop.federated.device.connection.link import Link, split_address
from edgeloop.federated.network.options import NetworkOptions
from edgeloop.quantities import at_least

ROOT, ROOT_KEY, SERVER, SERVER_KEY = "ca.pem", "ca.key", "server.pem", "server.key"
ROOT_DAYS = 3650
BEFORE = datetime.timedelta(days=1)  # a device's clock may be behind
LABEL = r"(?!-)[\w-]{1,63}(?<!-)"
NAME = re.compile(rf"(?=.{{1,253}}\Z)({LABEL}\.)*(?!\d+\Z){LABEL}", re.ASCII)  # RFC 1123; 1.2.3 is no name
STEPS = 10  # of a handshake in memory; TLS 1.3 takes three


def check_certificate(options: NetworkOptions) -> None:
    """See that a device will accept the certificate of the server, by a handshake in memory.

    Raises:
        DataError: A file cannot be read, or certificate and key do not belong together.
        IntegrityError: It has expired, is for another name, or does not lead to the root certificate.
    """
    assert options.certificate is not None and options.key is not None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(options.certificate, options.key, password=_no_password)
    except (OSError, ValueError) as e:  # ssl.SSLError is an OSError
        raise DataError(
            f"{options.certificate} and {options.key} are no certificate and its key ({one_line(e)})",
            advice="Name two PEM files that belong together, the key without passphrase.",
        ) from e
    root = None if options.root_certificate is None else str(options.root_certificate)
    client = Link(options.reached_at, certificate=root).root_certificates() or ssl.create_default_context()
    host = split_address(options.reached_at)[0]
    try:
        _shake_hands(server, client, host.strip("[]"))
    except ssl.SSLCertVerificationError as e:
        raise IntegrityError(
            f"devices would refuse {options.certificate}: {one_line(e.verify_message)}",
            advice=f"Make another: edgeloop federate certificate DIR --host {host}",
        ) from e


def write_certificates(folder: Path, hosts: Sequence[str], days: int) -> tuple[Path, ...]:
    """Make a certificate for a server with those names and addresses, and the authority that signs it.

    An authority that is there already signs again, so that devices keep the root certificate that they have.

    Returns:
        root certificate, key of the authority, certificate, key of the server. Keys are readable by their owner alone.

    Raises:
        OptionsError: No host, one that is neither a name nor an address, or `days` below 1 or more than the
            authority has left.
        DataError: The files of the authority cannot be read.
        WriteError: The folder cannot be written.
        MissingExtra: cryptography, which comes with Flower, is not installed.
    """
    at_least(days, 1, "--days")
    at_least(len(hosts), 1, "the number of --host")
    need("cryptography", extra="federated")
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    names = [_general_name(host) for host in hosts]
    paths = tuple(folder / name for name in (ROOT, ROOT_KEY, SERVER, SERVER_KEY))
    now = datetime.datetime.now(datetime.UTC)
    if paths[0].exists() or paths[1].exists():
        root, root_key = _read_authority(*paths[:2])
        _check_days(days, (root.not_valid_after_utc - now).days, folder)
    else:
        _check_days(days, ROOT_DAYS, folder)
        root_key = ec.generate_private_key(ec.SECP384R1())
        name = x509.Name.from_rfc4514_string("CN=edgeloop authority")
        root = _signed(name, root_key.public_key(), name, root_key, now, ROOT_DAYS, authority=True)
        _write_key(paths[1], root_key)
        write_file(paths[0], _pem(root))
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name.from_rfc4514_string("CN=edgeloop server")
    certificate = _signed(subject, key.public_key(), root.subject, root_key, now, days, names=names)
    _write_key(paths[3], key)
    write_file(paths[2], _pem(certificate))
    return paths


def _check_days(days: int, left: int, folder: Path) -> None:
    if days > left:
        raise OptionsError(
            f"--days is {days}, and the authority in {folder} is valid for {max(left, 0)} days",
            advice="Pass no more, or make a new authority in another folder, which devices get then.",
        )


def _no_password() -> bytes:
    return b""  # OpenSSL would ask the terminal


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(back, there, server_hostname=host),
        server.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(STEPS):
        for side in list(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                continue


def _general_name(host: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        if not NAME.fullmatch(host):
            raise OptionsError(
                f"--host is {host!r}, which is no name and no address",
                advice="Pass the name or the address by which devices reach the server, without a port.",
            ) from None
        return x509.DNSName(host)


def _read_authority(certificate: Path, key: Path) -> tuple[Any, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        root = x509.load_pem_x509_certificate(certificate.read_bytes())
        private: Any = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as e:
        raise DataError(
            f"the authority in {certificate.parent} cannot be read ({one_line(e)})",
            advice=f"Restore {certificate.name} and {key.name}, or make a new authority in another folder.",
        ) from e
    if private.public_key() != root.public_key():
        raise DataError(
            f"{key} is not the key of {certificate}", advice="Restore both, or make a new authority in another folder."
        )
    return root, private


def _signed(
    subject: Any,
    key: Any,
    issuer: Any,
    issuer_key: Any,
    now: datetime.datetime,
    days: int,
    *,
    names: Any = None,
    authority: bool = False,
) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    built = (
        x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
    )
    if names:
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return built.sign(issuer_key, hashes.SHA384())


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return bytes(certificate.public_bytes(Encoding.PEM))


def _write_key(path: Path, key: Any) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    before = os.umask(0o077)
    try:
        write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    finally:
        os.umask(before)
