"""The runtimes as fixed choices of an option, made from the tables of runtimes and of the engines of a page."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from edgeloop.runtime.page_engines import PAGE_ENGINES
from edgeloop.runtime_table import DEVICE_RUNTIMES, RUNTIMES

if TYPE_CHECKING:

    class RuntimeName(enum.StrEnum):
        """Every runtime that bench measures."""

    class DeviceRuntimeName(enum.StrEnum):
        """Every runtime that a device serves a model with."""

else:
    RuntimeName = enum.StrEnum("RuntimeName", {name.upper(): name for name in (*RUNTIMES, *PAGE_ENGINES)})
    DeviceRuntimeName = enum.StrEnum("DeviceRuntimeName", {name.upper(): name for name in DEVICE_RUNTIMES})
