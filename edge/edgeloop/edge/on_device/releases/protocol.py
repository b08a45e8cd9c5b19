"""What a deployer asks the agent that keeps a device's releases, and what it replies. Both ends import these.

`trial` and `activate` check everything again first: what runs on an enrolled device is signed, whatever was asked.
Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from edgeloop.edge.on_device.percentiles import FEWEST_RUNS
from edgeloop.errors import OptionsError
from edgeloop.processes.messages import EmptyReply, Request, by_name, one, one_or_none
from edgeloop.runtime.agent.push import PushReply, PushRequest

P90_RUNS = FEWEST_RUNS[90]
COMMITTED, ROLLED_BACK = "committed", "rolled back"


@dataclass(frozen=True)
class PullStatus:
    """What a slot that follows a source last heard from it.

    Attributes:
        age_s: Since the last poll, by the device's clock; None: none yet.
        result: "installed", "nothing new", "refused" or "failed", with the `reason`; empty: none yet.
        pulled: Whether the current release came from there.
    """

    source: str
    result: str = ""
    reason: str = ""
    age_s: float | None = None
    poll_s: float = 0.0
    failures: int = 0
    pulled: bool = False


@dataclass(frozen=True)
class SlotStatus:
    """What a device holds of one bundle name.

    Attributes:
        state: "committed", "probation", "empty" or "damaged", with the `reason`.
        current: The version that answers there; None: none yet.
        previous: The version that a rollback goes back to.
        floor: The highest version ever committed; none at or under it is taken again.
        folder: Of the current release, below `releases`.
        signer: Whose signature was checked; None: nobody's.
        last: {action, version, result, reason} of what was last done there.
        pull: Of the source that the slot follows; None: it follows none.
    """

    state: str
    current: int | None = None
    previous: int | None = None
    floor: int = 0
    variant: str | None = None
    runtime: str | None = None
    threads: int = 1
    folder: str | None = None
    manifest_sha256: str | None = None
    signer: str | None = None
    last: Mapping[str, Any] | None = None
    reason: str | None = None
    pull: PullStatus | None = field(default=None, metadata=one_or_none(PullStatus))


@dataclass(frozen=True)
class DeviceStatus:
    """A device as it described itself.

    Attributes:
        ssh_keygen: Whether it can verify signatures.
        machine: Each figure a value or "unknown" (requirements.py).
        clock_s: Seconds since 1970 by its own clock.
    """

    enrolled: bool
    machine: Mapping[str, Any]
    slots: Mapping[str, SlotStatus] = field(metadata=by_name(SlotStatus))
    home: str | None = None
    ssh_keygen: bool | None = None
    clock_s: float | None = None


@dataclass(frozen=True)
class StatusRequest(Request[DeviceStatus]):
    """What is here? Nothing is changed."""

    OP: ClassVar[str] = "status"
    REPLY: ClassVar[type] = DeviceStatus


@dataclass(frozen=True)
class EnrollRequest(Request[EmptyReply]):
    """Trust the signers in the payload (allowed_signers) from now on; once (trust.py)."""

    OP: ClassVar[str] = "enroll"
    REPLY: ClassVar[type] = EmptyReply


@dataclass(frozen=True)
class BeginReply:
    """The files that must be pushed; `unchanged`: exactly this is current and whole, so nothing is to be done."""

    missing: Sequence[str]
    unchanged: bool


@dataclass(frozen=True)
class BeginRequest(Request[BeginReply]):
    """Stage one variant of the manifest.json in the payload. `runtime` and `threads` None: any.
    `take_over`: end another deploy to the slot."""

    OP: ClassVar[str] = "begin"
    REPLY: ClassVar[type] = BeginReply
    slot: str
    variant: str
    runtime: str | None = None
    threads: int | None = None
    take_over: bool = False


@dataclass(frozen=True)
class StagePushRequest(PushRequest):
    """One of the missing files, or manifest.json.sig; as `PushRequest`."""

    REPLY: ClassVar[type] = PushReply
    slot: str = ""


@dataclass(frozen=True)
class CheckReply:
    """Who signed what is staged (None: nobody whom this device knows), and its version."""

    signer: str | None
    version: int


@dataclass(frozen=True)
class CheckRequest(Request[CheckReply]):
    """Signature, hashes, no unlisted file, version, requirements. Nothing is run."""

    OP: ClassVar[str] = "check"
    REPLY: ClassVar[type] = CheckReply
    slot: str
    runtime: str


@dataclass(frozen=True)
class TrialReply:
    """Parity records of the golden inputs, and what their runs took; a percentile is None where too few support it."""

    parity: Sequence[Mapping[str, Any]]
    p50_ms: float | None
    p90_ms: float | None
    runs: int
    rss_peak_bytes: int | None


@dataclass(frozen=True)
class TrialRequest(Request[TrialReply]):
    """Run the golden inputs in a child that may take `timeout_s`."""

    OP: ClassVar[str] = "trial"
    REPLY: ClassVar[type] = TrialReply
    slot: str
    runtime: str
    threads: int = 1
    timeout_s: float = 120.0


@dataclass(frozen=True)
class Probation:
    """What a release must do under `current` before it is committed: `runs` right outputs, and a p90 within the budget.

    Raises:
        OptionsError: A budget for a p90 that so few runs do not support, or no runs.
    """

    runs: int = P90_RUNS
    p90_budget_ms: float | None = None
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise OptionsError(f"--probation is {self.runs}", advice="It must be 1 or more.")
        for name, value in (("--p90-budget-ms", self.p90_budget_ms), ("--timeout-s", self.timeout_s)):
            if value is not None and not 0 < value < math.inf:
                raise OptionsError(f"{name} is {value:g}", advice="It must be a number above 0.")
        if self.p90_budget_ms is not None and self.runs < P90_RUNS:
            raise OptionsError(
                f"--probation is {self.runs}, too few runs for a 90th percentile",
                advice=f"It must be {P90_RUNS} or more with --p90-budget-ms.",
            )


@dataclass(frozen=True)
class ActivateReply:
    """How the probation ended.

    Attributes:
        result: COMMITTED, or ROLLED_BACK for `failure`, which is written as `errors.error_to_json` does.
    """

    result: str
    failure: Mapping[str, Any] | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    runs: int = 0


@dataclass(frozen=True)
class ActivateRequest(Request[ActivateReply]):
    """Install what was tried, make it current, and keep it or roll back after its probation."""

    OP: ClassVar[str] = "activate"
    REPLY: ClassVar[type] = ActivateReply
    slot: str
    probation: Probation = field(default_factory=Probation, metadata=one(Probation))


@dataclass(frozen=True)
class RollbackReply:
    """What runs there now."""

    version: int
    variant: str


@dataclass(frozen=True)
class RollbackRequest(Request[RollbackReply]):
    """Go back to the kept release."""

    OP: ClassVar[str] = "rollback"
    REPLY: ClassVar[type] = RollbackReply
    slot: str


REQUESTS: tuple[type[Request], ...] = (
    StatusRequest,
    EnrollRequest,
    BeginRequest,
    StagePushRequest,
    CheckRequest,
    TrialRequest,
    ActivateRequest,
    RollbackRequest,
)
