"""What a device is and can: each entry a value, "unsupported" or "unknown". Python 3.9 syntax, the standard library.

Sources
    /proc/cpuinfo             flags (x86), Features (arm): https://docs.kernel.org/arch/arm64/elf_hwcaps.html
    /proc/sys/kernel/arch     https://docs.kernel.org/admin-guide/sysctl/kernel.html#arch
"""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from edgeloop.runtime.agent.machine.memory import ram
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN, UNSUPPORTED, lines, text

FEATURES = ("flags", "Features")
ELF_MACHINE_AT, ELF_HEADER_BYTES = 18, 20
# what a kernel of the first runs by itself besides its own programs
ALSO_NATIVE = {"x86_64": ("i386", "i486", "i586", "i686"), "aarch64": ("armv6l", "armv7l", "armv8l", "arm")}


def capabilities(root: str = "/") -> dict[str, Any]:
    """Of this machine, as this process sees it. `root` is where proc, sys, dev and etc lie.

    Returns:
        {cpu_features: [names], board, os, kernel, libc, numpy, ram_total_bytes, ram_available_bytes, emulated: bool,
        delegates: {edgetpu: [devices]}}
    """
    from edgeloop.runtime.agent.delegates import EDGETPU, edge_tpus  # with ctypes; a deploy asks for the CPU alone

    return {
        "cpu_features": cpu_features(root),
        "board": text(os.path.join(root, "proc/device-tree/model")) or UNKNOWN,
        "os": _os(root),
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": _libc(),
        "numpy": _numpy(),
        "emulated": emulated(root),
        "delegates": {EDGETPU: edge_tpus(root)},
        **ram(root),
    }


def cpu_features(root: str = "/") -> list[str] | str:
    """Names that all CPUs share, sorted, as /proc/cpuinfo spells them; or "unknown"."""
    of_each = []
    for line in lines(os.path.join(root, "proc/cpuinfo")):
        name, _, value = line.partition(":")
        if name.strip() in FEATURES:
            of_each.append(set(value.split()))
    return sorted(set.intersection(*of_each)) if of_each else UNKNOWN


def emulated(root: str = "/", machine: str | None = None, program: str | None = None) -> bool | str:
    """Whether another architecture's kernel runs this process, instruction by instruction; or "unknown".

    qemu-user answers for the emulated CPU wherever a program usually asks: uname, /proc/cpuinfo, /proc/self/exe and
    maps, auxv. Two places it leaves alone (qemu 7.2 and 10.0): the kernel's own architecture in /proc/sys/kernel/arch
    (Linux 6.1), and the file that is truly executed, which /proc/thread-self/exe leads to.
    A virtual machine is not meant: it runs at the CPU's own speed.
    """
    machine = machine or platform.machine()
    kernel = text(os.path.join(root, "proc/sys/kernel/arch"))
    if kernel:
        return machine != kernel and machine not in ALSO_NATIVE.get(kernel, ())
    running = _elf_machine(os.path.join(root, "proc/thread-self/exe"))
    own = _elf_machine(program or sys.executable)
    if running is None or own is None:
        return UNKNOWN
    return running != own


def _elf_machine(path: str) -> int | None:
    """The architecture a program was built for, by its number in ELF; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            header = file.read(ELF_HEADER_BYTES)
    except OSError:
        return None
    if len(header) < ELF_HEADER_BYTES or header[:4] != b"\x7fELF":
        return None
    little = header[5] == 1
    return int.from_bytes(header[ELF_MACHINE_AT:ELF_HEADER_BYTES], "little" if little else "big")


def _os(root: str) -> str:
    for line in lines(os.path.join(root, "etc/os-release")):
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip("\"'")
    return UNKNOWN


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or UNKNOWN
    except (AttributeError, OSError, ValueError):  # another libc has no such name
        return UNKNOWN


def _numpy() -> str:
    try:
        import numpy
    except ImportError:
        return UNSUPPORTED
    return numpy.__version__
