"""What has to be true before devices of other machines can join, and what their owners are told."""

from __future__ import annotations

import errno
import socket

from edgeloop.errors import DeviceError, OptionsError
from edgeloop.extras import need
from edgeloop.federated.device.connection.link import split_address
from edgeloop.federated.network.certificates import check_certificate
from edgeloop.federated.network.device_keys import read_device_keys
from edgeloop.federated.network.options import NetworkOptions


def check_joining(options: NetworkOptions) -> None:
    """Refuse what devices would refuse, and an address that cannot be listened at.

    Raises:
        DataError, IntegrityError: A certificate, key or folder of device keys.
        DeviceError: The port is in use.
        OptionsError: No address of this machine, or a port that this user may not listen at.
        MissingExtra: Flower is not installed.
    """
    need("flwr", extra="federated")
    if options.certificate is not None:
        check_certificate(options)
    if options.device_keys is not None:
        read_device_keys(options.device_keys)
    host, port = split_address(options.listen)
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(found[0], found[1]) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # Flower takes the same port right after
            listening.bind(found[4])
            listening.listen(1)
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise DeviceError(
                f"port {port} on {host} is in use",
                advice="End the program that uses it, or choose another port in [network] listen.",
            ) from e
        raise OptionsError(
            f"[network] listen is {options.listen}, where this machine cannot listen ({e.strerror or e})",
            advice="Pass an address of this machine and a port above 1023.",
        ) from e


def told(options: NetworkOptions, *, signed: bool) -> str:
    """How devices join, for whoever started the run."""
    sentence = f"Devices join with: {options.join_command(signed=signed)}"
    if options.device_keys is None:
        return sentence
    return f"{sentence}. The key of each, device-key.pub, has to be in {options.device_keys}"
