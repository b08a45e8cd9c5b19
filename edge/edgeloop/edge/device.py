"""Where a model can run: this interpreter, another one on this machine.

local            the interpreter that runs edgeloop
local:PYTHON     another interpreter, with other packages
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import DeviceError, MissingExtra, OptionsError

DEVICE_PYTHON = "EDGELOOP_DEVICE_PYTHON"


@dataclass(frozen=True)
class Device:
    """A place to run an agent. `name` is what the user wrote."""

    name: str
    python: Path

    @property
    def label(self) -> str:
        """For records that others read: which environment, not where it lies on this disk."""
        return "local" if self.name == "local" else f"local:{self.python.parent.parent.name}"


def parse_device(text: str) -> Device:
    """Read `local` or `local:PYTHON`.

    Raises:
        OptionsError: Another form.
        DeviceError: No such interpreter.
    """
    kind, _, python = text.partition(":")
    if kind != "local" or (":" in text and not python):
        raise OptionsError(f"no device {text!r}. Expected local or local:PYTHON.")
    if not python:
        return Device("local", Path(sys.executable))
    found = shutil.which(python)
    if found is None:
        raise DeviceError(f"{text}: no program at {python}. Name a Python that exists.")
    return Device(text, Path(found).absolute())


def device_environment() -> Device:
    """The environment without TensorFlow that `make` (or `edgeloop setup device`) builds.

    Looked for, in this order: $EDGELOOP_DEVICE_PYTHON; `.venv-device` beside the environment edgeloop runs in.

    Raises:
        MissingExtra: It is not there.
    """
    named = os.environ.get(DEVICE_PYTHON)
    python = Path(named) if named else Path(sys.prefix).parent / ".venv-device" / "bin" / "python"
    if not python.is_file():
        raise MissingExtra(
            f"no device environment at {python}. Run: edgeloop setup device, or name one in {DEVICE_PYTHON}."
        )
    return Device(f"local:{python}", python)
