"""Devices that join a server of other machines, for tests: certificates, keys, and `edgeloop federate join`."""

import contextlib
import datetime
import ipaddress
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

WAIT_S = 400.0  # of a busy machine; seconds on an idle one


def pem(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """A certificate authority of its own, with its root in `root`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.key = folder, x509.Name.from_rfc4514_string(f"CN={name}"), self._new_key()
        self.root = folder / f"{name}.pem"
        self.root.write_bytes(self._sign(self.name, self.key, 365, ca=True))

    def server(self, name: str, days: int) -> tuple[Path, Path]:
        """Certificate and key for 127.0.0.1, valid until `days` from now."""
        key, files = self._new_key(), (self.folder / f"{name}.crt", self.folder / f"{name}.key")
        files[0].write_bytes(self._sign(x509.Name.from_rfc4514_string(f"CN={name}"), key, days, ca=False))
        files[1].write_bytes(pem(key))
        return files

    @staticmethod
    def _new_key():
        return ec.generate_private_key(ec.SECP384R1())

    def _sign(self, subject, key, days: int, ca: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        built = (
            x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        return built.sign(self.key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


def new_key(file: Path) -> Path:
    """A device's key, and beside it its public key."""
    key = ec.generate_private_key(ec.SECP384R1())
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    file.with_name(f"{file.name}.pub").write_bytes(public)
    return file


class Joined:
    """A running `edgeloop federate join`, and what it says on stderr, line by line."""

    def __init__(self, folder: Path, name: str, port: int, *options: object) -> None:
        data = folder / "data.npz"
        if not data.is_file():
            np.savez(data, x=np.zeros((4, 8), np.float32), y=np.arange(4) % 3)
        command = [sys.executable, "-m", "edgeloop", "federate", "join", f"127.0.0.1:{port}", "--data", data]
        command += ["--state", folder / name, "--unsigned", *options]
        self.process = subprocess.Popen(
            list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ
        )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.put(line.strip())
        self.lines.put("")

    def says(self, part: str) -> str:
        """The next line that holds `part`."""
        deadline, seen = time.monotonic() + WAIT_S, []
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                seen.append(self.lines.get(timeout=1))
                if part in seen[-1]:
                    return seen[-1]
        raise AssertionError(f"no {part!r} in {seen}")

    def ends(self, part: str) -> int:
        self.says(part)
        return self.process.wait(WAIT_S)
