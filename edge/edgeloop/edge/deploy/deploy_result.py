"""The options of a deploy, and its result on one device."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeloop.edge.on_device.releases import protocol
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints
from edgeloop.errors import EdgeloopError, OptionsError
from edgeloop.runtime.device import Device

STEPS = ("connect", "choose", "begin", "push", "check", "trial", "activate")


class DeployStatus(enum.StrEnum):
    """How it ended on one device."""

    COMMITTED = protocol.COMMITTED
    UNCHANGED = "unchanged"
    ROLLED_BACK = protocol.ROLLED_BACK
    FAILED = "failed"
    NOT_STARTED = "not started"
    DONE_BEFORE = "done before"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """What every device gets, and what a new release must do there.

    Attributes:
        probation: Runs of the reference inputs after the release became current and before it is committed.
        p90_budget_ms: Roll back where the 90th percentile of these runs is slower. None: any speed will do.
        timeout_s: For one step on a device; of an upload, for each piece of 4 MiB.
        take_over: End another deploy to the same slot of a device.
        slot: Take a bundle of this name alone. None: of any.
    """

    constraints: DeployConstraints = field(default_factory=DeployConstraints)
    threads: int = 1
    probation: int = protocol.P90_RUNS
    p90_budget_ms: float | None = None
    timeout_s: float = 300.0
    take_over: bool = False
    slot: str | None = None

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise OptionsError(f"--threads is {self.threads}", advice="It must be 1 or more.")
        protocol.Probation(self.probation, self.p90_budget_ms, self.timeout_s)  # refuses what a device would refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployResult:
    """What a deploy did on one device.

    Attributes:
        step: The last one that began, of STEPS; None: none.
        before: The release that was current before; None: none, or the device was not asked.
        runs: Of the probation; p50_ms, p90_ms of them, None where they are too few.
        sent_bytes: Size of the files that the device did not have yet.
        remarks: What is wrong with the device although the deploy goes on; a sentence each.
        error: Of the first check that failed; None: all passed.
    """

    device: Device
    result: DeployStatus
    version: int
    reason: str
    wave: int = 1
    step: str | None = None
    before: int | None = None
    variant: str | None = None
    runtime: str | None = None
    runs: int | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    sent_bytes: int = 0
    duration_s: float = 0.0
    remarks: Sequence[str] = ()
    error: EdgeloopError | None = None
