"""The status of many devices, asked at once; of one that does not answer, the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop.edge.deploy.parallel import Step, run_on_all
from edgeloop.edge.deploy.release_client import release_client
from edgeloop.edge.on_device.releases.protocol import DeviceStatus
from edgeloop.errors import EdgeloopError
from edgeloop.runtime.device import Device

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusResult:
    """Of one device; `status` None: it did not answer, `error` says why."""

    device: Device
    status: DeviceStatus | None = None
    error: EdgeloopError | None = None


def read_statuses(devices: Sequence[Device], timeout_s: float = TIMEOUT_S) -> list[StatusResult]:
    """Ask each device, for `timeout_s` at most once it is connected.

    Raises:
        InterruptedRun: Ctrl-C.
    """

    def work(device: Device, step: Step) -> StatusResult:
        try:
            step("status")
            with release_client(device, timeout_s) as client:
                return StatusResult(device=device, status=client.status())
        except EdgeloopError as e:
            return StatusResult(device=device, error=e)

    return run_on_all(devices, work, lambda *step: None)
