"""Signers enrolled on devices, once. From then on a device refuses bundles of anybody else, and other signers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.edge.deploy.history import kept_history
from edgeloop.edge.deploy.history_rows import HistoryAction, HistoryRow, now, of_device, of_end
from edgeloop.edge.deploy.parallel import Step, refuse_twice, run_on_all
from edgeloop.edge.deploy.release_client import release_client
from edgeloop.errors import EdgeloopError
from edgeloop.progress import Say
from edgeloop.registry.signatures.signers import read_signers
from edgeloop.runtime.device import Device


@dataclass(frozen=True, slots=True)
class EnrollResult:
    """Of one device; `error` None: it trusts the signers now."""

    device: Device
    error: EdgeloopError | None = None


def enroll(
    devices: Sequence[Device], signers: str | Path | bytes, timeout_s: float = 60.0, say: Say | None = None
) -> list[EnrollResult]:
    """Tell each device whose bundles it accepts. The same signers again are fine; a device refuses others.

    `signers` is an OpenSSH allowed_signers file, or the bytes of one that `read_signers` returned. `timeout_s` is for
    one device. `say` is told if no history was kept.

    Returns:
        One result a device, in their order; `error` is None where the device trusts the signers now.

    Raises:
        DataError: The file cannot be read or lists no key for bundles.
        OptionsError: No device, or one twice.
        InterruptedRun: Ctrl-C; its `results` are those of the devices that had begun.

    Example:
        >>> enroll([parse_device("ssh://pi@camera.local")], "signers")
    """
    refuse_twice(devices)
    keys = signers if isinstance(signers, bytes) else read_signers(Path(signers))

    with kept_history(say) as history:

        def work(device: Device, step: Step) -> EnrollResult:
            at, begun_s, error = now(), time.monotonic(), None
            try:
                step("enroll")
                with release_client(device, timeout_s) as client:
                    client.enroll(keys)
                history.remember(device)
            except EdgeloopError as e:
                error = e
            row = {**of_device(at, HistoryAction.ENROLL, device), **of_end(device, error, "enrolled")}
            history.add([HistoryRow(**row, duration_s=time.monotonic() - begun_s)])
            return EnrollResult(device, error)

        return run_on_all(devices, work, lambda *step: None)
