"""How much memory this process has and may have. Python 3.9 syntax, the standard library.

Sources
    MemAvailable    https://man7.org/linux/man-pages/man5/proc_meminfo.5.html
    cgroup v2       https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max, memory.current, memory.stat)
    cgroup v1       https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from edgeloop.runtime.agent.machine.sysfs import UNKNOWN, integer, lines

# of each version: the limit, the use, and the page cache that is given back before anything is killed
FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
MOUNTS = {2: ("sys/fs/cgroup", "sys/fs/cgroup/unified"), 1: ("sys/fs/cgroup/memory",)}


def ram(root: str = "/") -> dict[str, int | str]:
    """{ram_total_bytes, ram_available_bytes}: the machine's, or what this process's cgroup leaves of it; or "unknown".

    `root` is where proc and sys are mounted.
    """
    machine = _meminfo(os.path.join(root, "proc/meminfo"))
    limits = list(_limits(root))
    total = [*_known(machine, "MemTotal"), *(limit for limit, _ in limits)]
    available = [*_known(machine, "MemAvailable"), *(max(0, limit - used) for limit, used in limits)]
    return {
        "ram_total_bytes": min(total) if total else UNKNOWN,
        "ram_available_bytes": min(available) if available else UNKNOWN,
    }


def own_bytes(root: str = "/", process: str = "self") -> dict[str, int | None]:
    """{rss_bytes, rss_peak_bytes} of this process, or of another by its number; null: not known.

    Not getrusage: its ru_maxrss survives exec and would report the parent's; VmHWM does not.
    """
    status = _meminfo(os.path.join(root, "proc", process, "status"))
    return {"rss_bytes": status.get("VmRSS"), "rss_peak_bytes": status.get("VmHWM")}


def _known(machine: dict[str, int], name: str) -> list[int]:
    return [machine[name]] if name in machine else []


def _meminfo(path: str) -> dict[str, int]:
    """{name: bytes} of the lines "Name:   123 kB"."""
    found = {}
    for line in lines(path):
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            found[name] = int(words[0]) * 1024
    return found


def _limits(root: str) -> Iterator[tuple[int, int]]:
    """(limit, used) in bytes of every cgroup around this process that has a limit."""
    for line in lines(os.path.join(root, "proc/self/cgroup")):
        number, controllers, path = line.split(":", 2)
        version = 2 if number == "0" and not controllers else 1
        if version == 1 and "memory" not in controllers.split(","):
            continue
        limit_file, used_file, cache = FILES[version]
        for mount in MOUNTS[version]:
            for folder in _upwards(os.path.join(root, mount), path):
                limit = integer(os.path.join(folder, limit_file))  # "max": no integer, no limit
                used = integer(os.path.join(folder, used_file))
                if limit is not None and used is not None:
                    yield limit, used - _stat(os.path.join(folder, "memory.stat"), cache)


def _upwards(mount: str, path: str) -> list[str]:
    """The cgroup's folder and those above it up to the mount, which inside a container may be the whole path."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [os.path.join(mount, *parts[:count]) for count in range(len(parts), -1, -1)]


def _stat(path: str, name: str) -> int:
    for line in lines(path):
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
