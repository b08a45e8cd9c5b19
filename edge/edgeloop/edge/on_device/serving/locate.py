"""This device in, what a service that answers on it needs to know out. Python 3.9 syntax."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from typing import Any

from edgeloop.edge.on_device.releases.durable import NEW
from edgeloop.edge.on_device.serving.current_release import ServeRequest, choose
from edgeloop.runtime.agent.child_model import PROGRAM
from edgeloop.runtime.agent.paths import home


def where(wanted: ServeRequest) -> dict[str, Any]:
    """{python, program, home, user, slot, ram_bytes}: absolute paths; the variant's need of memory, None where unknown.

    Raises as `choose`: what cannot answer now would not as a service.
    """
    chosen = choose(wanted)
    return {
        "python": sys.executable,
        "program": _kept(PROGRAM[0]),
        "home": home(),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "slot": wanted.slot.name if wanted.slot else None,
        "bundle": None if wanted.slot else chosen.folder,
        "ram_bytes": chosen.variant.requires.ram_bytes,
    }


def _kept(program: str) -> str:
    """The program in the device's own folder: a cache, where it may have been started from, may be emptied."""
    path = os.path.join(home(), os.path.basename(program))
    if not os.path.exists(path):
        os.makedirs(home(), mode=0o700, exist_ok=True)
        shutil.copyfile(program, path + NEW)
        os.replace(path + NEW, path)
    return path
