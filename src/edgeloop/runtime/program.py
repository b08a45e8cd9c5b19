"""The one file that travels to a device: the folders it runs and the ground floor they use, as a zip that Python runs.

Source: https://docs.python.org/3/library/zipapp.html
"""

from __future__ import annotations

import atexit
import contextlib
import io
import tempfile
import zipfile
from functools import cache
from pathlib import Path, PurePosixPath

import edgeloop
import edgeloop.errors
from edgeloop.atomic import write_file
from edgeloop.errors import WriteError
from edgeloop.hashes import digest_of
from edgeloop.leftovers import temporary_folder
from edgeloop.processes.exit_status import OLD_PYTHON, OLDEST_PYTHON
from edgeloop.user_cache import CacheKind, cache_folder, log_miss, mark_used

# All that travels of the namespace `edgeloop`, and the only list of it: whole folders, and of the ground floor what
# they use. Each file is Python 3.9 and imports the standard library, NumPy, a runtime, and what travels with it.
# tests/house/unit/test_travels.py holds the files, ruff's rules and the documents to this list.
GROUND_FLOOR = (
    "atomic",
    "bundle",
    "canonical",
    "disk_errors",
    "errors",
    "formats",
    "hashes",
    "idx",
    "leftovers",
    "progress",
    "quantities",
    "runtime_table",
    "tfrecord",
    "toml_value",
)
FOLDERS = (
    "processes",
    "runtime/agent",
    "runtime/parity",
    "registry/signatures",
    "registry/versions",
    "http",
    "edge/on_device",
    "federated/device",
)
ISOLATED = ("-E", "-s")  # as -I is for an archive, which Python 2 does not know
# Older Pythons read this file too, so they can say what they are; the imports below they could not even parse.
MAIN = f"""import sys

if sys.version_info < {OLDEST_PYTHON}:
    found, needed = "%d.%d" % sys.version_info[:2], "%d.%d" % {OLDEST_PYTHON}
    sys.stderr.write("Python %s is there, and %s or newer is needed\\n" % (found, needed))
    sys.exit({OLD_PYTHON})
from edgeloop.runtime.agent.__main__ import main

main()
""".encode()
BEGINNING = (1980, 1, 1, 0, 0, 0)  # the first moment of a zip: same sources, same bytes


@cache
def program() -> bytes:
    """The file's bytes."""
    sources = {f"edgeloop/{name}.py": Path(edgeloop.errors.__file__).with_name(f"{name}.py") for name in GROUND_FLOOR}
    for folder in FOLDERS:
        base = _folder(folder)
        sources |= {f"edgeloop/{folder}/{path.relative_to(base).as_posix()}": path for path in base.rglob("*.py")}
    # folders have entries of their own: before Python 3.13 zipimport finds a namespace package by nothing else
    folders = {f"{folder}/" for name in sources for folder in PurePosixPath(name).parents if folder.name}
    entries = {"__main__.py": MAIN, **dict.fromkeys(sorted(folders), b"")}
    entries |= {name: path.read_bytes() for name, path in sorted(sources.items())}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name, BEGINNING), data)
    return packed.getvalue()


def _folder(name: str) -> Path:
    """Where a folder of the namespace lies: beside the others in a wheel, elsewhere in a checkout."""
    return next(path for portion in edgeloop.__path__ if (path := Path(portion, name)).is_dir())


def program_name() -> str:
    """Named by its content, so that a device has the right one or none."""
    return f"agent-{digest_of(program())[:16]}.pyz"


def local_program() -> Path:
    """The file on this machine, for agents that run here: in $EDGELOOP_CACHE, or the user's cache folder; where neither
    may be written to, in the temporary folder for as long as this process runs.

    Raises:
        WriteError: It can be written nowhere.
    """
    path = cache_folder(CacheKind.PROGRAMS) / program_name()
    try:
        return _written(path)
    except WriteError:
        return _written(_scratch(tempfile.gettempdir()) / path.name)


def _written(path: Path) -> Path:
    try:
        there = path.read_bytes() == program()
    except OSError:
        there = False
    if there:
        mark_used(path)
    else:
        log_miss(path)
        write_file(path, program())
    return path


@cache
def _scratch(parent: str) -> Path:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return Path(stack.enter_context(temporary_folder(parent)))
