"""The verb `setup`: what extras cannot carry. Environments for devices and for onnx2tf, tensorflowjs, a Chromium.

Packages are pinned with hashes in `locks/`, and come from wherever the machine's uv and pip are configured to look.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from importlib.metadata import distribution, version
from pathlib import Path

import typer

from edgeloop.browser.chromium import find_chromium
from edgeloop.convert.sources.onnx_environment import ONNX2TF_FOLDER, build_onnx2tf_environment
from edgeloop.errors import MissingExtra
from edgeloop.result import CommandResult
from edgeloop.runtime.environment import INSTALL_TIMEOUT_S, LOCKS, beside, install, new_environment, run
from edgeloop.runtime_table import RUNTIMES, TFLITE_RUNTIME


def device(ctx: typer.Context) -> CommandResult:
    """Create the device environment, which has the runtimes but no TensorFlow."""
    return build_device_environment(beside(".venv-device"))


def tfjs(ctx: typer.Context) -> CommandResult:
    """Install tensorflowjs, which writes TF.js files, without the requirements that contradict TensorFlow's."""
    install(Path(sys.executable), ["--no-deps", "--require-hashes", "-r", LOCKS / "tfjs.txt"])
    found = version("tensorflowjs")
    return CommandResult(
        {"tensorflowjs": found, "environment": sys.prefix}, notes=[f"tensorflowjs {found} in {sys.prefix}"]
    )


def onnx2tf(ctx: typer.Context) -> CommandResult:
    """Create the environment that reads .onnx files."""
    python, found = build_onnx2tf_environment(beside(ONNX2TF_FOLDER))
    return CommandResult({"python": str(python), "onnx2tf": found}, notes=[f"onnx2tf {found} for {python}"])


def browser(ctx: typer.Context) -> CommandResult:
    """Find a Chromium, or install one with Playwright."""
    try:
        chromium = find_chromium()
    except MissingExtra:
        # Playwright brings the system libraries too, but needs root for them; edgeloop runs the whole browser, no shell
        system = ["--with-deps"] if os.geteuid() == 0 and shutil.which("apt-get") else []
        run([sys.executable, "-m", "playwright", "install", "--no-shell", *system, "chromium"], INSTALL_TIMEOUT_S)
        chromium = find_chromium()
    found = run([chromium, "--version"], timeout_s=60).strip().splitlines()[-1]  # a missing library shows here
    return CommandResult({"chromium": str(chromium), "version": found}, notes=[f"{found} at {chromium}"])


def build_device_environment(folder: Path) -> CommandResult:
    """Make `folder` anew: `locks/device.txt`, and this very edgeloop without its requirements.

    Raises:
        WriteError: The place beside the running environment may not be written to.
        MissingExtra: A package cannot be had.
    """
    with new_environment(folder, instead="a device environment in EDGELOOP_DEVICE_PYTHON") as python:
        install(python, ["--require-hashes", "-r", LOCKS / "device.txt"])
        copy_edgeloop(Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)})))
        look = "import importlib.util as u, json; print(json.dumps([m for m in {} if u.find_spec(m)]))"
        wanted = [*(one.module for one in RUNTIMES.values() if one.trains), "flwr", "edgeloop.edge", "tensorflow"]
        found = json.loads(run([python, "-I", "-c", look.format(wanted)], timeout_s=60))
    notes = [f"device environment: {python} has {', '.join(found)}"]
    if TFLITE_RUNTIME.module not in found:
        notes.append(f"LiteRT alone on Python {sysconfig.get_python_version()}: tflite-runtime ends at 3.11.")
    return CommandResult({"python": str(python), "modules": found}, notes=notes)


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
