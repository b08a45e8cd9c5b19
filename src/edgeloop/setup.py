"""The verb `setup`: what extras cannot carry. An environment for devices, tensorflowjs, a Chromium.

Packages are pinned with hashes in `locks/`, and come from wherever the machine's uv and pip are configured to look.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib.metadata import distribution, version
from pathlib import Path

import typer

from edgeloop.answer import Answer
from edgeloop.browser.chromium import find_chromium
from edgeloop.edge.process import owned
from edgeloop.errors import MissingExtra, WriteError

LOCKS = Path(__file__).with_name("locks")
INSTALL_TIMEOUT_S = 1800.0

app = typer.Typer()
group = typer.Typer(no_args_is_help=True, help="Install what extras cannot carry, pinned with hashes.")
app.add_typer(group, name="setup")


@group.command()
def device(ctx: typer.Context) -> Answer:
    """Build the device environment, which has no TensorFlow, beside the one edgeloop runs in."""
    return build_device_environment(Path(sys.prefix).parent / ".venv-device")


@group.command()
def tfjs(ctx: typer.Context) -> Answer:
    """Install tensorflowjs beside TensorFlow, without its own requirements, which contradict it."""
    install(Path(sys.executable), ["--no-deps", "--require-hashes", "-r", LOCKS / "tfjs.txt"])
    found = version("tensorflowjs")
    return Answer({"tensorflowjs": found, "environment": sys.prefix}, notes=[f"tensorflowjs {found} in {sys.prefix}"])


@group.command()
def browser(ctx: typer.Context) -> Answer:
    """Say which Chromium shows pages to programs and tests; where there is none, let Playwright bring one."""
    try:
        chromium = find_chromium()
    except MissingExtra:
        # Playwright brings the system libraries too, but needs root for them; edgeloop runs the whole browser, no shell
        system = ["--with-deps"] if os.geteuid() == 0 and shutil.which("apt-get") else []
        _run([sys.executable, "-m", "playwright", "install", "--no-shell", *system, "chromium"], INSTALL_TIMEOUT_S)
        chromium = find_chromium()
    found = _run([chromium, "--version"], timeout_s=60).strip().splitlines()[-1]  # a missing library shows here
    return Answer({"chromium": str(chromium), "version": found}, notes=[f"{found} at {chromium}"])


def build_device_environment(folder: Path) -> Answer:
    """Make `folder` anew: `locks/device.txt`, and this very edgeloop without its requirements.

    Raises:
        WriteError: The place beside the running environment may not be written to.
        MissingExtra: A package cannot be had.
    """
    if not os.access(folder.parent, os.W_OK):
        raise WriteError(
            f"cannot write {folder}. Run edgeloop from a virtual environment of your own, "
            "or name a device environment in EDGELOOP_DEVICE_PYTHON."
        )
    python = folder / "bin" / "python"
    try:
        _run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], timeout_s=120)
        install(python, ["--require-hashes", "-r", LOCKS / "device.txt"])
        copy_edgeloop(Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)})))
        look = "import importlib.util as u, json; print(json.dumps([m for m in {} if u.find_spec(m)]))"
        wanted = ["ai_edge_litert", "tflite_runtime", "flwr", "edgeloop.edge", "tensorflow"]
        found = json.loads(_run([python, "-I", "-c", look.format(wanted)], timeout_s=60))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half an environment would be taken for a whole one
        raise
    notes = [f"device environment: {python} has {', '.join(found)}"]
    if "tflite_runtime" not in found:
        notes.append(f"LiteRT alone on Python {sysconfig.get_python_version()}: tflite-runtime ends at 3.11.")
    return Answer({"python": str(python), "modules": found}, notes=notes)


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
        raise MissingExtra(f"neither uv nor pip is installed in {sys.prefix}. Run: {sys.executable} -m ensurepip")
    failures = []
    for command in commands:
        try:
            _run(command, INSTALL_TIMEOUT_S)
            return
        except MissingExtra as e:
            failures.append(str(e))
    raise MissingExtra(" ".join(failures))


def _run(command: Sequence[str | Path], timeout_s: float) -> str:
    """What the command printed.

    Raises:
        MissingExtra: It failed or took too long, with its last line.
    """
    with tempfile.TemporaryFile("w+") as log, owned(command, stdout=log, stderr=subprocess.STDOUT) as child:
        try:
            code: int | str = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = f"no end after {timeout_s:g} s"
        log.seek(0)
        printed = log.read()
    if code != 0:
        last = (printed.strip().splitlines() or ["it printed nothing"])[-1]
        raise MissingExtra(f"{' '.join(map(str, command[:4]))} … failed ({code}): {last}. Mend that and try again.")
    return printed
