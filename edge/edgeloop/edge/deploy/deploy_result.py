"""What is asked of a deploy, and what it did on one device."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from edgeloop.edge.deploy.variant_choice import DeployConstraints
from edgeloop.edge.on_device.percentiles import FEWEST_RUNS
from edgeloop.errors import EdgeloopError, OptionsError
from edgeloop.runtime.device import Device

STEPS = ("connect", "choose", "begin", "push", "check", "trial", "activate")
P90_RUNS = FEWEST_RUNS[90]


class DeployStatus(enum.StrEnum):
    """How it ended on one device."""

    COMMITTED = "committed"
    UNCHANGED = "unchanged"
    ROLLED_BACK = "rolled back"
    FAILED = "failed"
    NOT_STARTED = "not started"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """What every device gets, and what it must show.

    Attributes:
        probation: Runs of the golden inputs after the release became current and before it is kept.
        p90_budget_ms: Of one such run. None: right answers are enough.
        timeout_s: Of one step on a device; an upload has it for each piece of 4 MiB.
    """

    constraints: DeployConstraints = field(default_factory=DeployConstraints)
    threads: int = 1
    probation: int = P90_RUNS
    p90_budget_ms: float | None = None
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        if self.threads < 1 or self.probation < 1 or self.timeout_s <= 0:
            raise OptionsError("threads and probation are 1 or more, the timeout more than 0 s.")
        if self.p90_budget_ms is not None and self.probation < P90_RUNS:
            raise OptionsError(
                f"{self.probation} runs do not support a 90th percentile. Expected --probation {P90_RUNS} or more."
            )
        if self.p90_budget_ms is not None and self.p90_budget_ms <= 0:
            raise OptionsError(f"no run takes {self.p90_budget_ms:g} ms. Expected a budget above 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployResult:
    """What a deploy did on one device.

    Attributes:
        step: The last one it began, of STEPS; None: none.
        before: The release that was current when it was asked; None: none, or it was not asked.
        p50_ms: Of the probation's runs; p90_ms None: too few of them.
        sent_bytes: Size of the files that were not there yet.
        error: Why a gate did not open; None: all did.
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
    p50_ms: float | None = None
    p90_ms: float | None = None
    sent_bytes: int = 0
    error: EdgeloopError | None = None
