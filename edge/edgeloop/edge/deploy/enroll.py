"""Signers enrolled on devices, once. From then on a device refuses bundles of anybody else, and other signers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop.edge.deploy.fleet import add_devices
from edgeloop.edge.deploy.parallel import Step, refuse_twice, run_on_all
from edgeloop.edge.deploy.release_client import release_client
from edgeloop.errors import EdgeloopError
from edgeloop.runtime.device import Device


@dataclass(frozen=True, slots=True)
class EnrollResult:
    """Of one device; `error` None: it trusts the signers now."""

    device: Device
    error: EdgeloopError | None = None


def enroll(devices: Sequence[Device], signers: bytes, timeout_s: float = 60.0) -> list[EnrollResult]:
    """Enroll the signers that `read_signers` returned on each device. The same ones again are accepted, others refused.

    Raises:
        OptionsError: No device, or one twice.
        Interrupted: Ctrl-C; its `results` are those of the devices that had begun.
    """
    refuse_twice(devices)

    def work(device: Device, step: Step) -> EnrollResult:
        try:
            step("enroll")
            with release_client(device, timeout_s) as client:
                client.enroll(signers)
            add_devices([device])
        except EdgeloopError as e:
            return EnrollResult(device, e)
        return EnrollResult(device)

    return run_on_all(devices, work, lambda device, step: None)
