"""Python environments beside the one that edgeloop runs in: each made from a lock with hashes, whole or not at all.

Packages come from wherever the machine's uv and pip are configured to look.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import edgeloop.errors
from edgeloop.errors import MissingExtra, WriteError
from edgeloop.processes.command import run_program
from edgeloop.processes.file_lock import exclusive
from edgeloop.runtime.user_data import data_folder

LOCKS = Path(edgeloop.errors.__file__).with_name("locks")
INSTALL_TIMEOUT_S = 1800.0
UNFINISHED = "edgeloop-unfinished"
ADVICE = "Correct that and try again."


def environment_folder(name: str) -> Path:
    """Where the environment `name` belongs: in the user's data folder, one per version of edgeloop and of Python.

    A link `NAME-environment` in the environment that edgeloop runs in leads elsewhere: a checkout keeps its own.
    """
    link = Path(sys.prefix) / f"{name}-environment"
    if link.is_symlink():
        return Path(os.path.normpath(link.parent / link.readlink()))  # not resolved: its name stands in records
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return environments_folder() / f"{name}-{version('edgeloop')}-{python}"


def environments_folder() -> Path:
    """The folder of all of them, e.g. ~/.local/share/edgeloop/environments."""
    return data_folder() / "environments"


def is_complete(folder: Path) -> bool:
    """Whether an environment stands there, and not the half of one whose making was killed."""
    return (folder / "bin" / "python").is_file() and not (folder / UNFINISHED).exists()


@contextlib.contextmanager
def new_environment(folder: Path, instead: str) -> Iterator[Path]:
    """Make `folder` anew, an environment without packages, and yield its interpreter to install with.

    If the block fails or is interrupted, the folder is removed; if it is killed, `is_complete` says so.

    Args:
        instead: What a user can do where `folder` cannot be written.

    Raises:
        WriteError: The place may not be written to.
        MissingExtra: Python's venv does not work here.
    """
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / UNFINISHED).touch()
    except OSError as e:
        raise WriteError(f"cannot write {folder} ({e.strerror})", advice=f"Name {instead}.") from e
    try:
        run_program([sys.executable, "-m", "venv", "--without-pip", folder], MissingExtra, timeout_s=120, advice=ADVICE)
        yield folder / "bin" / "python"
        (folder / UNFINISHED).unlink()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def one_at_a_time(folder: Path, timeout_s: float = INSTALL_TIMEOUT_S) -> Iterator[None]:
    """Keep other processes from making `folder` meanwhile; the mark is a file `folder`.lock, which stays.

    Raises:
        MissingExtra: Another process still had it after `timeout_s`.
        WriteError: The mark cannot be written.
    """
    mark = folder.with_name(folder.name + ".lock")
    with contextlib.ExitStack() as stack:
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(mark, timeout_s))
        except TimeoutError as e:
            raise MissingExtra(f"another process has been making {folder} for {timeout_s:g} s", advice="End it.") from e
        except OSError as e:
            raise WriteError(
                f"cannot write {mark} ({e.strerror})", advice="Set XDG_DATA_HOME to a folder that you can write."
            ) from e
        yield


def install(python: Path, arguments: Sequence[str | Path]) -> None:
    """`pip install ARGUMENTS` into the environment of `python`: by uv where there is one, else by pip.

    pip is the second try where both exist: a package index may be named in pip's configuration alone.

    Raises:
        MissingExtra: Neither is there, or both failed, each with its reason.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    uv = shutil.which("uv", path=path)
    commands: list[list[str | Path]] = [[uv, "pip", "install", "--python", python, *arguments]] if uv else []
    if importlib.util.find_spec("pip"):
        commands.append([sys.executable, "-m", "pip", "--python", python, "install", *arguments])
    if not commands:
        raise MissingExtra(
            f"neither uv nor pip is installed in {sys.prefix}", advice=f"Run: {sys.executable} -m ensurepip"
        )
    failures = []
    for command in commands:
        try:
            run_program(command, MissingExtra, timeout_s=INSTALL_TIMEOUT_S, advice=ADVICE)
            return
        except MissingExtra as e:
            failures.append(e)
    raise MissingExtra("; ".join(e.found for e in failures), advice=failures[-1].advice)
