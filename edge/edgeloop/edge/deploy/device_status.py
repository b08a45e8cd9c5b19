"""The status of many devices, asked at once; of one that does not answer, the reason."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeloop.edge.deploy.history import kept_history
from edgeloop.edge.deploy.history_rows import EMPTY, HistoryAction, HistoryRow, now, of_device, of_end
from edgeloop.edge.deploy.parallel import Step, run_on_all
from edgeloop.edge.deploy.release_client import release_client
from edgeloop.edge.on_device.releases.protocol import DeviceStatus
from edgeloop.errors import EdgeloopError
from edgeloop.progress import Say
from edgeloop.runtime.device import Device

TIMEOUT_S = 60.0
UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusResult:
    """Of one device; `status` None: it did not answer, `error` says why."""

    device: Device
    status: DeviceStatus | None = None
    duration_s: float = 0.0
    error: EdgeloopError | None = None


def read_statuses(
    devices: Sequence[Device], timeout_s: float = TIMEOUT_S, say: Say | None = None
) -> list[StatusResult]:
    """Ask each device, `timeout_s` at most for each answer. `say` is told if no history was kept.

    Raises:
        InterruptedRun: Ctrl-C.
    """
    with kept_history(say) as history:

        def work(device: Device, step: Step) -> StatusResult:
            at, begun_s = now(), time.monotonic()
            result = replace(_ask(device, timeout_s, step), duration_s=time.monotonic() - begun_s)
            rows = _rows(at, result)
            if result.status is None:
                history.add(rows)
            else:
                history.add_answer(rows)
            return result

        return run_on_all(devices, work, lambda *step: None)


def _ask(device: Device, timeout_s: float, step: Step) -> StatusResult:
    try:
        step("status")
        with release_client(device, timeout_s) as client:
            return StatusResult(device=device, status=client.status())
    except EdgeloopError as e:
        return StatusResult(device=device, error=e)


def _rows(at: str, result: StatusResult) -> list[HistoryRow]:
    """A row a slot; one where there is none, or no answer."""
    of = {**of_device(at, HistoryAction.STATUS, result.device), "duration_s": result.duration_s}
    if result.status is None:
        return [HistoryRow(**{**of, **of_end(result.device, result.error, ""), "result": UNREACHABLE})]
    return [
        HistoryRow(
            **of,
            slot=name,
            result=slot.state,
            version=slot.current,
            variant=slot.variant,
            runtime=slot.runtime,
            manifest_sha256=slot.manifest_sha256,
            reason=slot.reason,
        )
        for name, slot in result.status.slots.items()
    ] or [HistoryRow(**of, result=EMPTY)]
