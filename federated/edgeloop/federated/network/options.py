"""What `[network]` says: where devices of other machines reach a run, and which of them may take part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import OptionsError
from edgeloop.federated.device.connection.link import split_address
from edgeloop.http.loopback import is_loopback_host
from edgeloop.quantities import above_zero, at_least

EVERYWHERE = ("0.0.0.0", "[::]")  # all addresses of a machine
MAKE = "Make both: edgeloop federate certificate DIR --host HOST."


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Devices of other machines, which join by `edgeloop federate join` and hold their data themselves.

    Attributes:
        listen: HOST:PORT, an address of this machine; 0.0.0.0 stands for all of them.
        devices: How many devices the run is for; [rounds] fraction is a part of them.
        address: HOST:PORT as devices write it, where that is not `listen`.
        certificate, key: Of the server (PEM). None: plain HTTP.
        root_certificate: What devices check the certificate by (PEM). None: the root certificates of their systems.
        device_keys: A folder with the public key of each device, NAME.pub. A key that is added counts at once, one that
            is removed is revoked at once.
        any_device: Every device that reaches the server may take part.
        insecure: Plain HTTP on an address that other machines reach.
        wait_s: How long a round waits for devices to connect.
    """

    listen: str
    devices: int
    address: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    root_certificate: Path | None = None
    device_keys: Path | None = None
    any_device: bool = False
    insecure: bool = False
    wait_s: float = 600.0

    def __post_init__(self) -> None:
        at_least(self.devices, 1, "[network] devices")
        above_zero(self.wait_s, "[network] wait-s")
        host, _ = split_address(self.listen)
        if host in EVERYWHERE and self.address is None:
            raise OptionsError(
                f"[network] listen is {self.listen}, which is no address that a device can call",
                advice='Add address = "HOST:PORT", as devices reach this machine.',
            )
        split_address(self.reached_at)
        if (self.certificate is None) != (self.key is None):
            raise OptionsError("[network] has one of certificate and key", advice=f"Name both. {MAKE}")
        if self.certificate is None:
            self._check_plain(host)
        else:
            self._check_secure()

    @property
    def reached_at(self) -> str:
        """HOST:PORT as devices write it."""
        return ":".join(split_address(self.address or self.listen))

    def join_command(self, *, signed: bool) -> str:
        """What the owner of a device runs there."""
        scheme = "http" if self.certificate is None else "https"
        words = ["edgeloop federate join", f"{scheme}://{self.reached_at}", "--data DATA"]
        if self.certificate is None:
            words.append("--insecure")
        if self.root_certificate is not None:
            words.append(f"--root-certificate {self.root_certificate.name}")
        if self.device_keys is not None:
            words.append("--key device-key")
        return " ".join([*words, "--signers SIGNERS" if signed else "--unsigned"])

    def _check_plain(self, host: str) -> None:
        needless = {"root-certificate": self.root_certificate, "device-keys": self.device_keys}
        given = [name for name, value in needless.items() if value is not None]
        if given:
            raise OptionsError(
                f"[network] has {' and '.join(given)}, and no certificate: plain HTTP checks neither side",
                advice=f"Add certificate and key. {MAKE}",
            )
        if not (self.insecure or is_loopback_host(host)):
            raise OptionsError(
                f"[network] listens at {self.listen} without a certificate: whoever is on the way can read and change "
                "the weights and the model",
                advice=f"Add certificate and key, or insecure = true on a network that you trust. {MAKE}",
            )

    def _check_secure(self) -> None:
        if self.insecure:
            raise OptionsError("[network] has a certificate, and insecure = true", advice="Leave out one of them.")
        if (self.device_keys is not None) == self.any_device:
            both = "[network] has device-keys, and any-device = true"
            neither = "[network] does not say which devices may take part"
            raise OptionsError(
                both if self.any_device else neither,
                advice='Add device-keys = "FOLDER" with the public key of each device, or any-device = true.',
            )
