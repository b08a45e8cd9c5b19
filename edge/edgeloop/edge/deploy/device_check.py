"""Devices in, what each of them has and lacks out, before anything is deployed: one look, and nothing is changed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from edgeloop.edge.deploy.device_findings import CheckState, Finding, judge
from edgeloop.edge.deploy.history import kept_history
from edgeloop.edge.deploy.history_rows import HistoryAction, HistoryRow, now, of_device, of_end
from edgeloop.edge.deploy.parallel import Step, run_on_all
from edgeloop.edge.on_device.device_facts import FactsReply, FactsRequest
from edgeloop.errors import EdgeloopError, OptionsError, TargetError
from edgeloop.leftovers import log_file
from edgeloop.processes.conversation import Conversation
from edgeloop.progress import Say
from edgeloop.runtime.connection import connect
from edgeloop.runtime.device import Device

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCheck:
    """Of one device. `error`: it could not be asked, and `findings` are what is known without."""

    device: Device
    findings: Sequence[Finding] = ()
    facts: FactsReply | None = None
    error: EdgeloopError | None = None

    @property
    def lacking(self) -> list[Finding]:
        """Findings without which a deploy fails."""
        return [finding for finding in self.findings if finding.state is CheckState.LACKS]


def check_devices(devices: Sequence[Device], timeout_s: float = TIMEOUT_S, say: Say | None = None) -> list[DeviceCheck]:
    """Look at each device once, at all of them at once.

    `timeout_s` is for each answer of a device. `say` is told if no history was kept.

    Raises:
        OptionsError: `timeout_s` is no time.
        InterruptedRun: Ctrl-C.

    Example:
        >>> (found,) = check_devices([parse_device("ssh://pi@camera.local")])
        >>> [finding.advice for finding in found.lacking]
    """

    if not 0 < timeout_s < math.inf:
        raise OptionsError(f"--timeout-s is {timeout_s:g}", advice="It must be a number above 0.")

    with kept_history(say) as history:

        def work(device: Device, step: Step) -> DeviceCheck:
            at, begun_s = now(), time.monotonic()
            try:
                step("check")
                check = _check(device, timeout_s)
            except EdgeloopError as e:
                check = DeviceCheck(device=device, error=e)
            history.add([_row(at, check, time.monotonic() - begun_s)])
            return check

        return run_on_all(devices, work, lambda *step: None)


def _row(at: str, check: DeviceCheck, duration_s: float) -> HistoryRow:
    """Its reason is the first thing that the device lacks, if any."""
    row = {
        **of_device(at, HistoryAction.CHECK, check.device),
        **of_end(check.device, check.error, "lacks" if check.lacking else "ok"),
    }
    if check.lacking:
        row["reason"] = f"{check.lacking[0].check}: {check.lacking[0].found}"
    return HistoryRow(**row, duration_s=duration_s)


def _check(device: Device, timeout_s: float) -> DeviceCheck:
    with ExitStack() as stack:
        log = stack.enter_context(log_file())
        connection = stack.enter_context(connect(device, timeout_s))
        child = stack.enter_context(connection.start(["edge.on_device.device_facts"], log))
        conversation = Conversation(child, device.name, timeout_s, log)
        before_s = time.time()
        facts, _ = conversation.request(FactsRequest())
        host_clock_s = (before_s + time.time()) / 2
        login = list(_login(connection)) if connection.remote else []
    return DeviceCheck(device=device, facts=facts, findings=[*judge(facts, host_clock_s), *login])


def _login(connection: Any) -> Iterator[Finding]:
    """What ssh and the login shell are like, while one program runs over the connection."""
    if connection.greeting:
        yield Finding(
            "login shell",
            f"prints {len(connection.greeting)} bytes at each login, which are skipped",
            CheckState.REMARK,
        )
    begun_s = time.monotonic()
    connection.run("true")  # where sshd takes one session of a connection, ssh logs in once more
    yield Finding("ssh", f"a command takes {(time.monotonic() - begun_s) * 1e3:.0f} ms")


def failure(found: Sequence[DeviceCheck]) -> EdgeloopError | None:
    """What ends the command: a device that cannot be asked, else the first that lacks something; None: all have all."""
    silent = next((check.error for check in found if check.error is not None), None)
    if silent is not None:
        return silent
    for check in found:
        if check.lacking:
            first = check.lacking[0]
            return TargetError(
                f"{len(check.lacking)} of {len(check.findings)} checks failed; the first: {first.check}: {first.found}",
                advice=first.advice,
                where=check.device.name,
            )
    return None
