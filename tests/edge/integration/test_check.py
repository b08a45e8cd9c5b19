"""`edgeloop check` of a real device behind ssh, and of one that has nothing."""

import json
import subprocess
import sys

from edgeloop.edge.deploy.device_check import check_devices, failure
from edgeloop.runtime.agent.paths import HOME


def test_a_device_behind_ssh_tells_what_it_has_and_that_its_shell_prints(new_ssh_device):
    greets = """ForceCommand echo Welcome; eval "$SSH_ORIGINAL_COMMAND"\n"""
    device = new_ssh_device("greets", settings=greets)
    (found,) = check_devices([device.device])
    assert failure([found]) is None
    by_name = {finding.check: finding for finding in found.findings}
    assert by_name["login shell"].found.startswith("prints 8 bytes at each login")  # "Welcome\n"
    assert by_name["ssh"].state == by_name["runtimes"].state == by_name["clock"].state == "ok"
    assert "litert" in found.facts.runtimes and found.facts.home == str(device.home)


def test_a_server_that_takes_one_session_of_a_connection_is_no_hindrance(new_ssh_device):
    (found,) = check_devices([new_ssh_device("one", settings="MaxSessions 1\n").device])
    assert failure([found]) is None and any(finding.check == "ssh" for finding in found.findings)


def test_a_machine_that_answers_no_command_is_given_up_after_the_time_that_was_given(new_ssh_device):
    (found,) = check_devices([new_ssh_device("hangs", settings="ForceCommand sleep 60\n").device], timeout_s=2)
    assert found.error is not None and found.error.found == "no answer in 2 s"


def test_a_python_without_anything_is_exit_7_with_what_to_paste(tmp_path, monkeypatch):
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -I -S "$@"\n')  # -S: no site-packages
    bare.chmod(0o755)
    command = [sys.executable, "-m", "edgeloop", "check", f"local:{bare}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 7, done.stderr
    (device,) = json.loads(done.stdout)["devices"]
    lacks = {check["check"]: check["advice"] for check in device["checks"] if check["state"] == "lacks"}
    assert lacks["NumPy"].endswith("-m pip install numpy") and "ai-edge-litert" in lacks["runtimes"]
    assert not (tmp_path / "home").exists()  # nothing is changed
