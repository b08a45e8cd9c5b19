"""The Python environment that has onnx2tf: made on first use, and again when its lock has changed."""

from __future__ import annotations

import os
from pathlib import Path

from edgeloop.errors import MissingExtra, WriteError, last_line
from edgeloop.hashes import digest
from edgeloop.processes.command import run_program
from edgeloop.progress import Progress, silent
from edgeloop.runtime.environment import ADVICE, LOCKS, environment_folder, install, new_environment, one_at_a_time

ONNX2TF = "onnx2tf"
STAMP = "edgeloop-lock.sha256"
INSTEAD = "a Python that has onnx2tf in EDGELOOP_ONNX2TF_PYTHON"
# importing shows a library that is missing, and leaves the compiled files that save every later conversion seconds
LOOK = "import onnx_graphsurgeon, onnxruntime, tensorflow, tf_keras; import importlib.metadata as m; "


def onnx2tf_python(progress: Progress = silent) -> Path:
    """The interpreter of the environment, which is made now if it is not there or came from another lock.

    EDGELOOP_ONNX2TF_PYTHON names another interpreter, which is taken as it is.

    Raises:
        MissingExtra: It cannot be made, with the line that makes it.
    """
    named = os.environ.get("EDGELOOP_ONNX2TF_PYTHON")
    if named:
        return Path(named)
    folder = environment_folder(ONNX2TF)
    if is_whole(folder):
        return folder / "bin" / "python"
    what = f"installing onnx2tf in {folder}, once"
    progress(what, 0, 1)
    try:
        with one_at_a_time(folder):
            if not is_whole(folder):  # another process may have made it while this one waited
                _build(folder)
    except (MissingExtra, WriteError) as e:
        raise MissingExtra(
            f"an .onnx file needs onnx2tf: {e.clause}", advice=f"{e.advice} Then run: edgeloop setup onnx2tf".strip()
        ) from e
    progress(what, 1, 1)
    return folder / "bin" / "python"


def build_onnx2tf_environment(folder: Path) -> tuple[Path, str]:
    """Make `folder` anew from `locks/onnx2tf.txt`; its interpreter, and the version of onnx2tf in it.

    Raises:
        WriteError: The place may not be written to.
        MissingExtra: A package cannot be had, or does not load.
    """
    with one_at_a_time(folder):
        return _build(folder)


def is_whole(folder: Path) -> bool:
    """Whether an environment from the present lock stands there: the stamp is written last."""
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text() == _lock_digest()


def _build(folder: Path) -> tuple[Path, str]:
    with new_environment(folder, INSTEAD) as python:
        install(python, ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", LOCKS / "onnx2tf.txt"])
        look = [str(python), "-I", "-c", LOOK + "print(m.version('onnx2tf'))"]
        found = last_line(run_program(look, MissingExtra, timeout_s=300, advice=ADVICE))
        (folder / STAMP).write_text(_lock_digest())
    return python, found


def _lock_digest() -> str:
    return digest(LOCKS / "onnx2tf.txt")
