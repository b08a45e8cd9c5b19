"""What `[selection]` says: which of the connected devices may be asked, by what they say of themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgeloop.errors import OptionsError


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionOptions:
    """A device says before each round what it is; one that says nothing is not asked where anything is demanded.

    Attributes:
        on_battery: Devices that run on their battery now may be asked.
        metered: Devices whose network costs by volume may be asked. One that does not know counts as not metered.
        min_ram_mb: Memory of the machine, at least.
    """

    on_battery: bool = True
    metered: bool = True
    min_ram_mb: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min_ram_mb) and self.min_ram_mb >= 0):
            raise OptionsError(
                f"[selection] min-ram-mb is {self.min_ram_mb:g}", advice="It must be a number that is 0 or more."
            )

    @property
    def demands(self) -> bool:
        """Whether anything is demanded of a device."""
        return self != SelectionOptions()

    def allows(self, facts: Mapping[str, object]) -> bool:
        """Whether a device may be asked, by what `node_class` believes of its answer; empty: it has not answered."""
        if not self.demands:
            return True
        ram, on_battery = facts.get("ram-bytes", 0), facts.get("on-battery")
        enough = isinstance(ram, int) and ram >= self.min_ram_mb * 1e6
        powered = self.on_battery or on_battery is False
        return bool(facts) and enough and powered and (self.metered or facts.get("metered") is not True)
