"""Devices told once whose bundles they take. From then on they refuse all others, and another list of names too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop.edge.deploy.fleet import remember
from edgeloop.edge.deploy.parallel import Step, refuse_twice, together
from edgeloop.edge.deploy.release_client import keeper
from edgeloop.errors import EdgeloopError
from edgeloop.runtime.device import Device


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What became of it on one device; `error` None: it trusts the signers now."""

    device: Device
    error: EdgeloopError | None = None


def enroll(devices: Sequence[Device], signers: bytes, timeout_s: float = 60.0) -> list[Enrolled]:
    """Give each device the signers that `read_signers` returned. The same ones again are fine, others are refused.

    Raises:
        OptionsError: No device, or one twice.
        Interrupted: Ctrl-C; its `results` are those of the devices that had begun.
    """
    refuse_twice(devices)

    def work(device: Device, step: Step) -> Enrolled:
        try:
            step("enroll")
            with keeper(device, timeout_s) as keep:
                keep.enroll(signers)
            remember([device])
        except EdgeloopError as e:
            return Enrolled(device, e)
        return Enrolled(device)

    return together(devices, work, lambda device, step: None)
