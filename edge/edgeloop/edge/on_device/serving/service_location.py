"""This device in, what the text of a service for it needs to know out. Python 3.9 syntax."""

from __future__ import annotations

import os
import pwd
import sys
from typing import Any

from edgeloop.atomic import replace_file
from edgeloop.disk_errors import writing
from edgeloop.edge.on_device.serving.served_release import ServeRequest, select_release
from edgeloop.runtime.agent.child_model import PROGRAM
from edgeloop.runtime.agent.paths import home


def service_location(request: ServeRequest, installed: bool = True) -> dict[str, Any]:
    """{python, program, home, user, slot, bundle, ram_bytes}: absolute paths; `ram_bytes` is the memory that the
    variant needs, None where unknown. Not `installed`: the service fetches its first release itself.

    Raises as `select_release`: a release that cannot be served now could not be served by a service.
    """
    release = select_release(request) if installed else None
    return {
        "python": sys.executable,
        "program": _installed_program(PROGRAM[0]),
        "home": home(),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "slot": request.slot.name if request.slot else None,
        "bundle": None if request.slot or release is None else release.folder,
        "ram_bytes": None if release is None else release.variant.requires.ram_bytes,
    }


def _installed_program(program: str) -> str:
    """The program in the device's own folder: a cache, where it may have been started from, may be emptied."""
    path = os.path.join(home(), os.path.basename(program))
    if not os.path.exists(path):
        with writing(path), open(program, "rb") as file:
            os.makedirs(home(), mode=0o700, exist_ok=True)
            replace_file(path, file.read())
    return path
