"""Roll devices back to the previous release, which they keep: checked when it was installed, and again now."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from edgeloop.edge.deploy.history import kept_history
from edgeloop.edge.deploy.history_rows import HistoryAction, HistoryRow, now, of_device, of_end
from edgeloop.edge.deploy.parallel import Step, refuse_twice, run_on_all
from edgeloop.edge.deploy.release_client import release_client
from edgeloop.edge.on_device.releases.protocol import ROLLED_BACK, DeviceStatus
from edgeloop.errors import EdgeloopError, OptionsError
from edgeloop.progress import Say
from edgeloop.runtime.device import Device

TIMEOUT_S = 60.0
NONE: Mapping[Device, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackResult:
    """What runs on a device now. `version` None: nothing changed, `error` says why."""

    device: Device
    slot: str | None = None
    before: int | None = None
    version: int | None = None
    variant: str | None = None
    duration_s: float = 0.0
    error: EdgeloopError | None = None


def rollback(
    devices: Sequence[Device],
    slot: str | None = None,
    timeout_s: float = TIMEOUT_S,
    own: Mapping[Device, str] = NONE,
    say: Say | None = None,
) -> list[RollbackResult]:
    """Return each device to the release before, which it kept.

    `slot` is the bundle's name, and `own` has those of devices where it is another; None: the only one that is
    installed there. `timeout_s` is for one device. `say` is told if no history was kept.

    Returns:
        One result a device, in their order; `version` is what runs now, `error` None where that worked.

    Raises:
        OptionsError: No device, or one twice.
        InterruptedRun: Ctrl-C; its `results` are those of the devices that had begun.

    Example:
        >>> (result,) = rollback([parse_device("ssh://pi@camera.local")])
        >>> result.before, result.version
    """
    refuse_twice(devices)

    with kept_history(say) as history:

        def work(device: Device, step: Step) -> RollbackResult:
            at, begun_s = now(), time.monotonic()
            result = _roll_back(device, own.get(device, slot), timeout_s, step)
            result = replace(result, duration_s=time.monotonic() - begun_s)
            history.add([_row(at, result)])
            return result

        return run_on_all(devices, work, lambda *step: None)


def _row(at: str, result: RollbackResult) -> HistoryRow:
    return HistoryRow(
        **of_device(at, HistoryAction.ROLLBACK, result.device),
        **of_end(result.device, result.error, ROLLED_BACK),
        slot=result.slot,
        version=result.version,
        before=result.before,
        variant=result.variant,
        duration_s=result.duration_s,
    )


def _roll_back(device: Device, slot: str | None, timeout_s: float, step: Step) -> RollbackResult:
    try:
        step("rollback")
        with release_client(device, timeout_s) as client:
            status = client.status()
            name = slot or _only(device, status)
            before = status.slots[name].current if name in status.slots else None
            now = client.rollback(name)
    except EdgeloopError as e:
        return RollbackResult(device=device, slot=slot, error=e)
    return RollbackResult(device=device, slot=name, before=before, version=now.version, variant=now.variant)


def _only(device: Device, status: DeviceStatus) -> str:
    if len(status.slots) == 1:
        return next(iter(status.slots))
    if not status.slots:
        raise OptionsError(
            "no bundle is deployed on this device",
            advice=f"Run: edgeloop deploy BUNDLE --to {device.name}",
            where=device.name,
        )
    have = ", ".join(status.slots)
    raise OptionsError(
        f"{device.name} has {len(status.slots)} slots ({have}), and none was named",
        advice="Choose one with --slot NAME.",
    )
