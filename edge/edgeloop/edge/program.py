"""The one file that travels to a device: its programs and the ground floor they use, as a zip that Python runs.

Source: https://docs.python.org/3/library/zipapp.html
"""

from __future__ import annotations

import atexit
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path, PurePosixPath

import edgeloop.errors
from edgeloop.atomic import write_file
from edgeloop.errors import WriteError

ON_DEVICE = Path(__file__).with_name("on_device")
GROUND = ("canonical", "bundle", "errors")
EDGE = ("exclusive", "parity", "percentiles", "process", "quantization", "reference", "self_check")
MAIN = b"from edgeloop.edge.on_device.__main__ import main\n\nmain()\n"
BEGINNING = (1980, 1, 1, 0, 0, 0)  # the first moment of a zip: same sources, same bytes


@cache
def program() -> bytes:
    """The file's bytes."""
    ground, edge = Path(edgeloop.errors.__file__).parent, ON_DEVICE.parent
    sources = {f"edgeloop/{name}.py": ground / f"{name}.py" for name in GROUND}
    sources |= {f"edgeloop/edge/{name}.py": edge / f"{name}.py" for name in EDGE}
    sources |= {f"edgeloop/edge/{path.relative_to(edge).as_posix()}": path for path in ON_DEVICE.rglob("*.py")}
    # folders have entries of their own: before Python 3.13 zipimport finds a namespace package by nothing else
    folders = {f"{folder}/" for name in sources for folder in PurePosixPath(name).parents if folder.name}
    entries = {"__main__.py": MAIN, **dict.fromkeys(sorted(folders), b"")}
    entries |= {name: path.read_bytes() for name, path in sorted(sources.items())}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name, BEGINNING), data)
    return packed.getvalue()


def program_name() -> str:
    """Named by its content, so that a device has the right one or none."""
    return f"agent-{hashlib.sha256(program()).hexdigest()[:16]}.pyz"


def local_program() -> Path:
    """The file on this machine, for agents that run here: in $EDGELOOP_CACHE, or the user's cache folder; where neither
    may be written to, in the temporary folder for as long as this process runs.

    Raises:
        WriteError: It can be written nowhere.
    """
    named = os.environ.get("EDGELOOP_CACHE")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeloop"
    path = base / "programs" / program_name()
    try:
        return _written(path)
    except WriteError:
        return _written(_scratch() / path.name)


def _written(path: Path) -> Path:
    try:
        there = path.read_bytes() == program()
    except OSError:
        there = False
    if not there:
        write_file(path, program())
    return path


@cache
def _scratch() -> Path:
    folder = tempfile.mkdtemp(prefix="edgeloop-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
