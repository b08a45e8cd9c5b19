"""docs/first-steps.md, followed from top to bottom, with a device behind a real ssh on this machine for the Pi."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

DEVICE = "ssh://pi@camera-1/home/pi/edge/bin/python"
NOT_RUN = ("python3 -m venv", ". edgeloop-env", "pip install", "edgeloop setup")  # test_install.py has some of these


@pytest.fixture(scope="module")
def blocks(root) -> list[tuple[str, str]]:
    """Language and text of each block of code, in order."""
    text = (root / "docs/first-steps.md").read_text()
    return re.findall(r"^```(sh|python|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(600)  # 16 commands, each a process of its own; a minute on a quiet machine
def test_a_newcomer_gets_from_a_model_to_a_pi_a_page_and_devices_that_train(blocks, tmp_path, ssh_device):
    pytest.importorskip("sklearn")
    there = ssh_device.device.name
    ran = []
    for language, text in blocks:
        if language == "python":
            run([sys.executable, "-c", text], tmp_path)
        for line in text.splitlines() if language == "sh" else ():
            command = line.split("  #")[0].strip()
            if command.startswith(NOT_RUN):
                continue
            command = command.replace(DEVICE, there)
            ran.append(command.split()[1])
            if " browse " in command:
                shows_a_page(command, tmp_path)
            else:
                run(["sh", "-c", command], tmp_path)
    assert ran == [
        "convert", "inspect", "verify", "bench", "bench", "deploy", "devices", "-c", "run", "browse", "federate",
        "convert", "deploy", "rollback",
    ]  # fmt: skip
    assert json.loads((tmp_path / "run/rounds.json").read_text())["rounds"][-1]["replies"] == 2


def test_the_page_installs_litert_on_a_64_bit_pi_and_tflite_runtime_on_a_32_bit_one(blocks):
    """As docs/environments.md lists their wheels. No test runs these lines: an emulated Pi would download packages."""
    pi = [text for language, text in blocks if language == "text" and "~/edge/bin/pip" in text]
    assert ["ai-edge-litert" in text for text in pi] == [True, False]
    assert ["tflite-runtime" in text for text in pi] == [False, True]


def environment(folder: Path) -> dict[str, str]:
    """`edgeloop` and `python3` are those that run this test."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name, words in {"edgeloop": [sys.executable, "-m", "edgeloop"], "python3": [sys.executable]}.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, env=environment(folder))
    assert done.returncode == 0, f"{command[-1]}: {done.stderr[-2000:]}"


def shows_a_page(command: str, folder: Path) -> None:
    words = [sys.executable, "-m", *shlex.split(command)]
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = ""
            while "http://" not in line:
                line = server.stderr.readline() or server.stdout.readline()
                assert line, "the server ended without an address"
            address = re.search(r"http://\S+", line)[0]
            with urllib.request.urlopen(address, timeout=30) as page:
                assert b"<html" in page.read()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)
