"""Devices told once whose bundles they take. From then on they refuse all others, and another list of names too."""

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
    """What became of it on one device; `error` None: it trusts the signers now."""

    device: Device
    error: EdgeloopError | None = None


def enroll(devices: Sequence[Device], signers: bytes, timeout_s: float = 60.0) -> list[EnrollResult]:
    """Give each device the signers that `read_signers` returned. The same ones again are fine, others are refused.

    Raises:
        OptionsError: No device, or one twice.
        Interrupted: Ctrl-C; its `results` are those of the devices that had begun.
    """
    refuse_twice(devices)

    def work(device: Device, step: Step) -> EnrollResult:
        try:
            step("enroll")
            with release_client(device, timeout_s) as keep:
                keep.enroll(signers)
            add_devices([device])
        except EdgeloopError as e:
            return EnrollResult(device, e)
        return EnrollResult(device)

    return run_on_all(devices, work, lambda device, step: None)
