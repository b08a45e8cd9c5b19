"""What a device tells of itself before anything is deployed to it. Runs without NumPy and without a runtime.

python agent.pyz edge.on_device.device_facts    answers one request, `facts`. Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import glob
import os
import platform
import shutil
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from edgeloop.processes.frames import serve
from edgeloop.processes.messages import Request, answering
from edgeloop.registry.signatures.verify import ssh_keygen
from edgeloop.runtime.agent.machine.capabilities import capabilities
from edgeloop.runtime.agent.machine.conditions import ConditionReader
from edgeloop.runtime.agent.paths import home
from edgeloop.runtime.agent.survey import installed

CAMERA_PROGRAMS = ("rpicam-vid", "libcamera-vid", "ffmpeg")


@dataclass(frozen=True)
class FactsReply:
    """A device as its Python sees it.

    Attributes:
        python: Its version; `executable` is its path, `bits` the width of its pointers: 32 or 64.
        machine: The kernel's architecture: x86_64, aarch64, armv7l.
        runtimes: {name: version} of those that are installed.
        capabilities: machine/capabilities.py. `conditions`: machine/conditions.py.
        home: edgeloop's folder there; `writable`: whether files can be made in it.
        disk_free_bytes: Where that folder lies, for this user; `disk_free_files`: how many more files may be made there
            (inodes), None: as many as there is space for.
        clock_s: Seconds since 1970 by its own clock.
        camera_programs: Those of CAMERA_PROGRAMS that are installed; `videos` are its /dev/video*.
        verifies: It has OpenSSH's ssh-keygen, which checks signatures.
    """

    python: str
    executable: str
    bits: int
    machine: str
    runtimes: Mapping[str, str]
    capabilities: Mapping[str, Any]
    conditions: Mapping[str, Any]
    home: str
    writable: bool
    disk_free_bytes: int
    clock_s: float
    camera_programs: Sequence[str] = ()
    videos: Sequence[str] = ()
    verifies: bool = False
    disk_free_files: int | None = None


@dataclass(frozen=True)
class FactsRequest(Request[FactsReply]):
    """What is this device? Nothing is changed."""

    OP: ClassVar[str] = "facts"
    REPLY: ClassVar[type] = FactsReply


def facts(asked: FactsRequest, payload: bytes) -> FactsReply:
    """Of this machine and this Python."""
    folder = home()
    existing = folder
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    disk = os.statvfs(existing)
    return FactsReply(
        python=platform.python_version(),
        executable=sys.executable,
        bits=8 * struct.calcsize("P"),
        machine=platform.machine(),
        runtimes=installed(),
        capabilities=capabilities(),
        conditions=ConditionReader().read(),
        home=folder,
        writable=os.access(existing, os.W_OK | os.X_OK) and not disk.f_flag & os.ST_RDONLY,
        disk_free_bytes=disk.f_bavail * disk.f_frsize,
        disk_free_files=disk.f_favail if disk.f_files else None,
        clock_s=time.time(),
        camera_programs=[name for name in CAMERA_PROGRAMS if shutil.which(name)],
        videos=sorted(glob.glob("/dev/video[0-9]*")),
        verifies=ssh_keygen() is not None,
    )


def main(arguments: list[str]) -> None:
    serve({FactsRequest.OP: answering(FactsRequest, facts)})
