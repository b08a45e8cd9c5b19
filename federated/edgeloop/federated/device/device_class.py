"""What a server may ask of a device: which class of machine it is, and which models it holds. Never its data."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from typing import Any

from edgeloop.processes.command import run_command
from edgeloop.runtime.agent.machine.memory import ram
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN, text
from edgeloop.runtime.agent.trainer import choose_runtime

SUPPLIES = "sys/class/power_supply"
METERED = ("nmcli", "-g", "GENERAL.METERED", "device", "show")  # NetworkManager's word for each network
NMCLI_S = 5.0


def device_class(root: str = "/") -> dict[str, Any]:
    """{ram-bytes, cores, machine, runtime, battery, on-battery, metered}: numbers, words and flags. `root`: where proc
    and sys lie. What is not known is left out.

    Raises:
        MissingExtra: No runtime that trains is installed.
    """
    memory = ram(root)["ram_total_bytes"]
    described: dict[str, Any] = {"machine": platform.machine(), "cores": _cores(), "runtime": choose_runtime()}
    if memory != UNKNOWN:
        described["ram-bytes"] = memory
    return {**described, **power(root), **metered(network_manager())}


def power(root: str = "/") -> dict[str, bool]:
    """{battery, on-battery}: whether it has one, and whether it runs on it now."""
    folder = os.path.join(root, SUPPLIES)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    kinds = {name: _word(os.path.join(folder, name, "type")) for name in names}
    batteries = [name for name, kind in kinds.items() if kind == "Battery" and not _of_a_mouse(folder, name)]
    draining = any(_word(os.path.join(folder, name, "status")) == "Discharging" for name in batteries)
    return {"battery": bool(batteries), "on-battery": draining}


def metered(said: str) -> dict[str, bool]:
    """{metered}: whether traffic on a network costs money, by a line for each of them: yes, no, their guesses, or
    unknown. Empty where nobody knows."""
    words = {line.partition(" ")[0] for line in said.splitlines()}
    return {"metered": "yes" in words} if words & {"yes", "no"} else {}


def network_manager() -> str:
    """What NetworkManager says of the networks; empty where there is none."""
    if shutil.which(METERED[0]) is None:
        return ""
    with contextlib.suppress(OSError, TimeoutError):
        done = run_command(METERED, timeout_s=NMCLI_S)
        return done.out.decode(errors="replace") if done.status.ok else ""
    return ""


def _of_a_mouse(folder: str, name: str) -> bool:
    return _word(os.path.join(folder, name, "scope")) == "Device"


def _word(path: str) -> str:
    return text(path) or ""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
