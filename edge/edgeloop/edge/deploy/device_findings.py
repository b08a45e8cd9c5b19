"""A device's facts in, what they mean out: what is fine, what is worth a remark, what a deploy would fail for."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edgeloop.edge.on_device.device_facts import FactsReply
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN, UNSUPPORTED
from edgeloop.runtime_table import DEVICE_RUNTIMES, LITERT, RUNTIMES, TFLITE_RUNTIME

CLOCK_REMARK_S, CLOCK_LACKS_S = 60.0, 86_400.0  # signers and certificates are valid from day to day
YEAR_10000_S = 253_402_300_800  # past it no date can be written
DISK_LACKS_BYTES, DISK_REMARK_BYTES = 5_000_000, 100_000_000  # the program and a small model; three releases of one
DISK_LACKS_FILES = 50  # a release has some 10, and three lie there during a deploy
SET_CLOCK = "sudo timedatectl set-ntp true"
HOT_C = 80.0  # where a Raspberry Pi begins to slow down
GLIBC = (2, 27)  # LiteRT 2.3's wheels are manylinux_2_27
PYTHON_32 = ("3.9", "3.11")  # for which piwheels and PyPI have tflite-runtime on armv7l


class CheckState(enum.StrEnum):
    """What a finding means."""

    OK = "ok"
    REMARK = "remark"
    LACKS = "lacks"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice`: what to do, as commands to paste where there are any."""

    check: str
    found: str
    state: CheckState = CheckState.OK
    advice: str = ""


def judge(facts: FactsReply, host_clock_s: float) -> list[Finding]:
    """What the facts mean, in the order in which a user would mend them."""
    return [
        _python(facts),
        _system(facts),
        *_runtimes(facts),
        _memory(facts),
        _disk(facts),
        _clock(facts.clock_s - host_clock_s),
        *_heat(facts.conditions),
        _extras(facts),
    ]


def _python(facts: FactsReply) -> Finding:
    return Finding("Python", f"{facts.python}, {facts.bits} bits, {facts.executable}")


def _system(facts: FactsReply) -> Finding:
    known = facts.capabilities
    parts = [str(known[name]) for name in ("board", "os", "libc") if known[name] != UNKNOWN]
    emulated = known["emulated"] is True
    text = ", ".join([facts.machine, *parts, *(["emulated: its times mean nothing"] if emulated else [])])
    return Finding("system", text, CheckState.REMARK if emulated else CheckState.OK)


def _runtimes(facts: FactsReply) -> Iterator[Finding]:
    numpy, there = facts.capabilities["numpy"], {n: v for n, v in facts.runtimes.items() if n in DEVICE_RUNTIMES}
    too_new = {name for name in there if _numpy_too_new(name, numpy)}
    if numpy == UNSUPPORTED:
        yield Finding("NumPy", "not installed", CheckState.LACKS, f"{facts.executable} -m pip install numpy")
    elif too_new:
        state = CheckState.LACKS if too_new == set(there) else CheckState.REMARK
        needed = f"numpy<{min(RUNTIMES[name].numpy_below or 0 for name in too_new)}"
        found = f"{numpy}, and {', '.join(sorted(too_new))} needs {needed}"
        yield Finding("NumPy", found, state, f"{facts.executable} -m pip install '{needed}'")
    else:
        yield Finding("NumPy", numpy)
    if there:
        yield Finding("runtimes", ", ".join(f"{name} {version}" for name, version in there.items()))
    else:
        yield Finding("runtimes", "none", CheckState.LACKS, install_lines(facts))


def _numpy_too_new(runtime: str, numpy: str) -> bool:
    below = RUNTIMES[runtime].numpy_below
    major = numpy.partition(".")[0]
    return below is not None and major.isdecimal() and int(major) >= below


def install_lines(facts: FactsReply) -> str:
    """Commands that give this device a runtime, to be pasted there; or why there are none."""
    venv = "sudo apt install python3-venv"
    if facts.bits == 32:
        if not facts.python.startswith(PYTHON_32):
            return (
                f"no runtime has a package for 32 bits and Python {facts.python}; "
                f"install Python {' or '.join(PYTHON_32)}, or a 64-bit system"
            )
        return (
            f"{venv} python3-numpy && python3 -m venv --system-site-packages ~/edge && "
            f"~/edge/bin/pip install --no-deps {TFLITE_RUNTIME.package}"
        )
    glibc = _glibc(str(facts.capabilities["libc"]))
    if glibc is not None and glibc < GLIBC:
        return f"LiteRT's packages need glibc {GLIBC[0]}.{GLIBC[1]}: install a newer system"
    return f"{venv} && python3 -m venv ~/edge && ~/edge/bin/pip install numpy {LITERT.package}"


def _glibc(libc: str) -> tuple[int, ...] | None:
    name, _, version = libc.partition(" ")
    numbers = version.split(".")
    return tuple(map(int, numbers)) if name == "glibc" and all(n.isdecimal() for n in numbers) else None


def _memory(facts: FactsReply) -> Finding:
    free, total = facts.capabilities["ram_available_bytes"], facts.capabilities["ram_total_bytes"]
    if free == UNKNOWN:
        return Finding("memory", UNKNOWN, CheckState.REMARK)
    least = min(runtime.base_bytes or math.inf for runtime in DEVICE_RUNTIMES.values())
    lacks = free < least
    found = f"{free / 1e6:,.0f} MB free of {total / 1e6:,.0f} MB"
    advice = f"End other programs: a runtime alone takes {least / 1e6:.0f} MB." if lacks else ""
    return Finding("memory", found, CheckState.LACKS if lacks else CheckState.OK, advice)


def _disk(facts: FactsReply) -> Finding:
    found = f"{facts.disk_free_bytes / 1e6:,.0f} MB free for {facts.home}"
    if not facts.writable:
        advice = "Make it writable, or name another folder: set EDGELOOP_HOME there."
        return Finding("disk", f"{found}, which cannot be written", CheckState.LACKS, advice)
    if facts.disk_free_files is not None and facts.disk_free_files < DISK_LACKS_FILES:
        found = f"{found}, and {facts.disk_free_files} more files (inodes)"
        return Finding("disk", found, CheckState.LACKS, "Remove some files there.")
    if facts.disk_free_bytes < DISK_LACKS_BYTES:
        return Finding("disk", found, CheckState.LACKS, "Free some space there.")
    state = CheckState.REMARK if facts.disk_free_bytes < DISK_REMARK_BYTES else CheckState.OK
    return Finding("disk", found, state)


def _clock(off_s: float) -> Finding:
    size_s = abs(off_s)
    if size_s < CLOCK_REMARK_S:
        return Finding("clock", "as this machine's")
    found, lacks = _off(off_s), size_s > CLOCK_LACKS_S
    return Finding("clock", found, CheckState.LACKS if lacks else CheckState.REMARK, SET_CLOCK)


def clock_remarks(device_s: float | None, host_s: float) -> list[str]:
    """What a deploy says of a device's clock that is days wrong; both in seconds since 1970, None: not known."""
    if device_s is None or not abs(device_s - host_s) > CLOCK_LACKS_S:
        return []
    day = f" says {datetime.fromtimestamp(device_s, UTC):%Y-%m-%d}," if 0 <= device_s < YEAR_10000_S else " is"
    return [f"the device's clock{day} {_off(device_s - host_s)}. Run there: {SET_CLOCK}"]


def _off(seconds: float) -> str:
    return f"{_duration(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'} this machine's"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _heat(conditions: Mapping[str, Any]) -> Iterator[Finding]:
    celsius, throttled = conditions["temperature_c"], conditions["throttled"]
    if celsius != UNKNOWN or throttled is True:
        hot = throttled is True or (celsius != UNKNOWN and celsius >= HOT_C)
        found = UNKNOWN if celsius == UNKNOWN else f"{celsius:.0f} °C"
        found += ", and slowed down" if throttled is True else ""
        yield Finding("temperature", found, CheckState.REMARK if hot else CheckState.OK, "Cool it." if hot else "")


def _extras(facts: FactsReply) -> Finding:
    """What only some uses need."""
    tpus = facts.capabilities["delegates"]["edgetpu"]
    camera = f"camera with {facts.camera_programs[0]}" if facts.camera_programs else "no camera program"
    signed = "verifies signatures" if facts.verifies else "no ssh-keygen, so no signed bundles"
    edge_tpu = f"Edge TPU {', '.join(tpus)}" if isinstance(tpus, list) else "no Edge TPU"
    return Finding("further", f"{signed}; {camera}; {edge_tpu}")
