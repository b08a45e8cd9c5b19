"""What a device is given to take part with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeloop.runtime.agent.paths import resolved

STATE = "federated"  # the folder below EDGELOOP_HOME


@dataclass(frozen=True)
class DeviceOptions:
    """One device.

    Attributes:
        data: Its data set: a file, a folder, or module:function.
        state: The folder that it keeps, relative to EDGELOOP_HOME; no two devices share one.
        device: A label in replies; devices on loopback are numbered from 0.
        keep_local: Weights that stay here: `head`, names or patterns (personal.py).
        signers: An allowed_signers file; None: train models of anybody.
        tell_details: Send the server the text of an error, which may quote paths and values of the data: for a server
            on the same machine. False: the kind of the error alone.
        no_statistics: Tell the server nothing of the data but the number of examples, whatever it asks for.
    """

    data: str
    state: str = STATE
    device: int = 0
    keep_local: tuple[str, ...] = ()
    signers: str | None = None
    tell_details: bool = False
    no_statistics: bool = False

    def folder(self) -> str:
        """`state`, absolute."""
        return resolved(self.state)


def to_node_config(options: DeviceOptions) -> dict[str, object]:
    """For the processes that Flower's own SuperNode starts."""
    found: dict[str, object] = {"data": options.data, "state": options.folder(), "device": options.device}
    if options.keep_local:
        found["keep-local"] = " ".join(options.keep_local)
    if options.signers:
        found["signers"] = options.signers
    if options.tell_details:
        found["tell-details"] = True
    if options.no_statistics:
        found["no-statistics"] = True
    return found


def from_node_config(config: Mapping[str, object]) -> DeviceOptions:
    """The options that `to_node_config` wrote, or a person: `data` is needed, the rest is not."""
    device = int(str(config.get("device", 0)))
    signers = config.get("signers")
    return DeviceOptions(
        data=str(config["data"]),
        state=str(config.get("state", f"{STATE}-{device}")),
        device=device,
        keep_local=tuple(str(config.get("keep-local", "")).split()),
        signers=None if signers is None else str(signers),
        tell_details=config.get("tell-details") is True,
        no_statistics=config.get("no-statistics") is True,
    )
