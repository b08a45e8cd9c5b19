"""What a fleet file says of a device or a group beside names and addresses: the options of a deploy there."""

from __future__ import annotations

from dataclasses import dataclass, fields

from edgeloop.errors import OptionsError
from edgeloop.runtime_table import DEVICE_RUNTIMES
from edgeloop.settings import suggestion


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """Options that hold for one device, called as those of `edgeloop deploy`. None: nothing was said.

    Attributes:
        slot: The one slot that is meant there: bundles of another name are refused, `run` and `rollback` take it.
        max_ram_mb: In units of 10^6 bytes.
        timeout_s: For one step on the device.
    """

    slot: str | None = None
    variant: str | None = None
    runtime: str | None = None
    threads: int | None = None
    min_accuracy: float | None = None
    max_rmse: float | None = None
    max_ram_mb: float | None = None
    probation: int | None = None
    p90_budget_ms: float | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.runtime is not None and self.runtime not in DEVICE_RUNTIMES:
            raise OptionsError(
                f"runtime {self.runtime!r} is not known", advice=suggestion(self.runtime, DEVICE_RUNTIMES)
            )

    def said(self) -> dict[str, str | int | float]:
        """The options that have a value, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(DeviceSettings)}
        return {name: value for name, value in values.items() if value is not None}

    def over(self, other: DeviceSettings) -> DeviceSettings:
        """These, and where they say nothing, what `other` says."""
        return DeviceSettings(**{**other.said(), **self.said()})  # type: ignore[arg-type]  # each by its own name
