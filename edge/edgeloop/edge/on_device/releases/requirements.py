"""What a variant needs of a device, and whether this one has it. Python 3.9 syntax, the standard library."""

from __future__ import annotations

import os
import platform
from typing import Any

from edgeloop.bundle import Variant
from edgeloop.errors import TargetError
from edgeloop.runtime.agent.machine.capabilities import cpu_features
from edgeloop.runtime.agent.machine.memory import ram
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN
from edgeloop.runtime_table import RUNTIMES


def machine(root: str = "/") -> dict[str, Any]:
    """What a deployer chooses a variant by. `root` is where proc and sys lie."""
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "cpu_features": cpu_features(root),
        **ram(root),
    }


def check_requirements(variant: Variant, runtime: str, root: str = "/") -> None:
    """Refuse a variant that needs more than this device has, or CPU features that the device cannot tell. Memory that
    it cannot tell is left to the trial, whose child alone is ended where memory runs out.

    Raises:
        TargetError: Another runtime, CPU or memory is needed.
    """
    needs, have = variant.requires, machine(root)
    able = [name for name, known in RUNTIMES.items() if variant.format in known.formats]
    if runtime not in able:
        raise TargetError(
            f"{runtime} does not run {variant.id}, a {variant.format.value} file",
            advice=f"Choose one of: {', '.join(able) or 'none'}.",
        )
    if needs.runtimes and runtime not in needs.runtimes:
        raise TargetError(
            f"{variant.id} was not proved on {runtime}", advice=f"Choose one of: {', '.join(needs.runtimes)}."
        )
    features, ram_bytes = have["cpu_features"], have["ram_available_bytes"]
    lacking = sorted(set(needs.cpu_features) - (set() if features == UNKNOWN else set(features)))
    if lacking:
        raise TargetError(
            f"{variant.id} needs the CPU features {', '.join(lacking)}, which this device "
            f"{('may lack: it does not tell' if features == UNKNOWN else 'lacks')}",
            advice="Choose another variant.",
        )
    if needs.ram_bytes and ram_bytes != UNKNOWN and ram_bytes < needs.ram_bytes:
        raise TargetError(
            f"{variant.id} needs {needs.ram_bytes} bytes of memory, and {ram_bytes} are free",
            advice="Choose a smaller variant.",
        )
