"""The runtimes as fixed choices of an option, made from the one table of runtimes."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from edgeloop.runtime.agent.runtimes import RUNTIMES

COMPARISON = ("tensorflow",)  # not on devices; for bench, to compare with

if TYPE_CHECKING:

    class RuntimeName(enum.StrEnum):
        """Every runtime that bench measures."""

    class DeviceRuntimeName(enum.StrEnum):
        """Every runtime that a device serves a model with."""

else:
    RuntimeName = enum.StrEnum("RuntimeName", {name.upper(): name for name in RUNTIMES})
    DeviceRuntimeName = enum.StrEnum("DeviceRuntimeName", [(n.upper(), n) for n in RUNTIMES if n not in COMPARISON])
