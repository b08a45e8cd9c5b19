"""What bears on a device's speed now: governor, clock, temperature, throttling, load. Python 3.9 syntax, the standard
library.

Every entry is a value or "unknown"; that a sensor says nothing is never taken for good news.

Sources
    cpufreq             https://docs.kernel.org/admin-guide/pm/cpufreq.html
    thermal zones       https://docs.kernel.org/driver-api/thermal/sysfs-api.html
    x86 counters        https://docs.kernel.org/arch/x86/x86_64/machinecheck.html, sysfs thermal_throttle/
    get_throttled       https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from typing import Any

from edgeloop.processes.command import run_command
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN, integer, lines, text

VCGENCMD_TIMEOUT_S = 2.0
FLAGS = {  # bits of get_throttled; the same ones 16 higher say that it has happened since the start
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
SINCE_START = 16
OF_THE_CPU = re.compile(r"cpu|soc|pkg|core", re.IGNORECASE)  # cpu-thermal, x86_pkg_temp, soc_thermal, coretemp, ...
SLOWS_THE_CPU = re.compile(r"cpufreq|processor", re.IGNORECASE)  # thermal-cpufreq-0, cpufreq-cpu0, Processor


class ConditionReader:
    """Reads a device's state; what has happened between two readings counts into the second.

    `root` is where proc and sys are mounted; `vcgencmd` the Raspberry Pi's own tool, None: the one on the PATH.
    """

    def __init__(self, root: str = "/", vcgencmd: str | None = None) -> None:
        self.root = root
        self.vcgencmd = vcgencmd or shutil.which("vcgencmd")
        self.before: dict[str, int | None] = {}

    def read(self) -> dict[str, Any]:
        """{governor, frequency_mhz: [of each CPU], temperature_c, throttled, throttled_flags, throttle_events, load}.

        throttled is True where the device is slowed down now, or was since the last reading; False where it says that
        it is not. throttled_flags are the Pi's own words; throttle_events counts since the start, on x86. load: the
        mean number of processes that wanted to run, over 1, 5 and 15 minutes.
        """
        cpus = self._all("sys/devices/system/cpu/cpu[0-9]*")
        flags, events = self._pi(), self._x86_events()
        throttled = self._throttled(flags, events)
        self.before = {"flags": flags, "events": events}
        return {
            "governor": _governor(cpus),
            "frequency_mhz": _frequencies(cpus),
            "temperature_c": self._temperature(),
            "throttled": throttled,
            "throttled_flags": UNKNOWN if flags is None else _words(flags),
            "throttle_events": UNKNOWN if events is None else events,
            "load": self._load(),
        }

    def _all(self, pattern: str) -> list[str]:
        found = glob.glob(os.path.join(glob.escape(self.root), pattern))
        return sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", os.path.basename(path))])

    def _pi(self) -> int | None:
        """The bits of get_throttled: from the firmware's file (no process to start), or from vcgencmd; None: no Pi."""
        for path in self._all("sys/devices/platform/soc*/*firmware/get_throttled"):
            said = text(path)
            if said:
                return int(said, 16)
        if self.vcgencmd is None:
            return None
        try:
            said = run_command([self.vcgencmd, "get_throttled"], timeout_s=VCGENCMD_TIMEOUT_S).out.decode()
        except (OSError, ValueError):  # no permission for the firmware's device: unknown, and said so
            return None
        match = re.fullmatch(r"throttled=(0x[0-9a-fA-F]+)", said.strip())
        return int(match[1], 16) if match else None

    def _x86_events(self) -> int | None:
        counts = [integer(p) for p in self._all("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    def _throttled(self, flags: int | None, events: int | None) -> bool | str:
        """True if anything says so, False if something says no and nothing yes."""
        said = []
        if flags is not None:
            before = self.before.get("flags")
            new = 0 if before is None else flags & ~before
            said.append(bool(flags & ((1 << SINCE_START) - 1) or new >> SINCE_START))
        events_before = self.before.get("events")
        if events is not None and events_before is not None:
            said.append(events > events_before)
        for device in self._all("sys/class/thermal/cooling_device[0-9]*"):
            state = integer(os.path.join(device, "cur_state"))
            if state is not None and SLOWS_THE_CPU.search(text(os.path.join(device, "type")) or ""):
                said.append(state > 0)
        return any(said) if said else UNKNOWN

    def _temperature(self) -> float | str:
        """The hottest zone of the CPU; of a machine that does not say which zone is whose, the hottest of all."""
        zones = [
            (text(os.path.join(zone, "type")) or "", integer(os.path.join(zone, "temp")))
            for zone in self._all("sys/class/thermal/thermal_zone[0-9]*")
        ]
        known = [(kind, value) for kind, value in zones if value is not None]
        chosen = [value for kind, value in known if OF_THE_CPU.search(kind)] or [value for _, value in known]
        return max(chosen) / 1000 if chosen else UNKNOWN

    def _load(self) -> list[float] | str:
        for line in lines(os.path.join(self.root, "proc/loadavg")):
            return [float(word) for word in line.split()[:3]]
        return UNKNOWN


def _governor(cpus: list[str]) -> str:
    """One name; several, joined by commas, where the CPUs differ."""
    names = {text(os.path.join(cpu, "cpufreq/scaling_governor")) or "" for cpu in cpus} - {""}
    return ", ".join(sorted(names)) or UNKNOWN


def _frequencies(cpus: list[str]) -> list[float | str] | str:
    """MHz of each CPU. Not /proc/cpuinfo's "cpu MHz": in a virtual machine that is a constant."""
    khz = [integer(os.path.join(cpu, "cpufreq/scaling_cur_freq")) for cpu in cpus]
    if all(value is None for value in khz):
        return UNKNOWN
    return [UNKNOWN if value is None else value / 1000 for value in khz]


def _words(flags: int) -> list[str]:
    now = [word for bit, word in FLAGS.items() if flags >> bit & 1]
    past = [f"{word} since the start" for bit, word in FLAGS.items() if flags >> (bit + SINCE_START) & 1]
    return now + past
