"""Ctrl-C and SIGTERM at random moments of a verb's first second: exit code 130, one line, and nothing is left."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from devices import eventually, with_environment
from sweeps import swept

from edgeloop import __main__ as start
from edgeloop.cli import Interruption
from edgeloop.errors import INTERRUPTED, error_to_json

MARK = "EDGELOOP_TEST_MARK"
WITHIN_S = 1.5
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def verbs(root: Path, device: str, out: Path) -> list[list[str]]:
    golden = str(root / "tests" / "golden" / "bundle-1")
    model = f"{golden}/float32.tflite"
    return [
        ["devices", device],
        ["deploy", golden, "--to", device, "--variant", "int8", "--json"],
        ["run", golden],
        ["convert", model, "-o", str(out), "--to", "tflite"],
        ["bench", golden, "--on", device],
        ["check", device],
        ["inspect", model],
        ["verify", golden],
        ["browse", golden, "--no-open"],
    ]


@swept("moments", 2, 20)
def test_a_signal_in_the_first_seconds_ends_a_verb_with_one_line(root, device_python, tmp_path, moments):
    chance, temporary, mark = random.Random(11), tmp_path / "tmp", uuid.uuid4().hex
    temporary.mkdir()
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        MARK: mark,
        "EDGELOOP_HOME": str(tmp_path / "home"),
        "EDGELOOP_FLEET": str(tmp_path / "fleet.json"),
    }
    cases = verbs(root, f"local:{device_python}", tmp_path / "out")
    ends = []
    for words in cases[:4] if moments == 2 else cases:
        for number in [chance.choice(SIGNALS) for _ in range(moments)]:
            wait_s = WITHIN_S * chance.random() ** 2  # most in the imports
            code, said = interrupted([sys.executable, "-m", "edgeloop", *words], environment, number, wait_s)
            case = f"{words[0]}, {number.name} after {wait_s:.3f} s: {code}, {said}"
            lines = [line for line in said.splitlines() if line.startswith("edgeloop: ")]
            assert code in (0, INTERRUPTED, -number) and "Traceback" not in said and "ignored" not in said, case
            assert lines == ([start.LINE.decode().strip()] if code == INTERRUPTED else []), case
            assert eventually(lambda: not with_environment(f"{MARK}={mark}")), case
            assert not list(temporary.iterdir()), case
            ends.append(code)
    assert ends.count(INTERRUPTED) > len(ends) // 2
    assert not list(tmp_path.glob(".*")), "half of a bundle"


def interrupted(command: list[str], environment: dict, number: signal.Signals, wait_s: float) -> tuple[int, str]:
    """The exit code and standard error of a command that gets a signal so long after it began to handle them."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as child:
        assert eventually(lambda: handles(child.pid, signal.SIGTERM) or child.poll() is not None)
        time.sleep(wait_s)
        child.send_signal(number)
        _, said = child.communicate(timeout=300)
    return child.returncode, said.decode()


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for this signal (proc(5), SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("moment", ["Console.__init__", "Console.close"], ids=["before", "after"])
def test_a_signal_beside_the_time_in_which_the_command_line_handles_it_has_its_line_too(moment):
    """Standard error belongs to the frameworks then."""
    patched = f"""
import os, sys
from edgeloop import cli, __main__
own = cli.{moment}
def interrupted(*arguments, **options):
    own(*arguments, **options)
    for number in __main__.SIGNALS:
        cli.signal.signal(number, __main__._end)
    os.kill(os.getpid(), {int(signal.SIGINT)})
cli.{moment} = interrupted
sys.argv[1:] = ["cache"]
__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", patched], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (INTERRUPTED, start.LINE.decode())


def test_before_the_command_line_is_loaded_the_words_are_the_same():
    later = Interruption("interrupted; every process that was started has ended.")
    assert start.INTERRUPTED == INTERRUPTED
    assert start.LINE.decode() == f"edgeloop: {later}\n"
    assert json.loads(start.DOCUMENT) == {"error": error_to_json(later)}


@pytest.mark.parametrize("ended", [signal.SIGKILL, signal.SIGSEGV])
def test_what_a_killed_command_left_goes_with_the_next(root, device_python, tmp_path, ended):
    """The command waits for its device, whose program is stopped before it answers."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    stopped = tmp_path / "python"
    stopped.write_text("#!/bin/sh\nexec sleep 60\n")
    stopped.chmod(0o755)
    environment = {**os.environ, "TMPDIR": str(temporary), "EDGELOOP_FLEET": str(tmp_path / "fleet.json")}
    command = [sys.executable, "-m", "edgeloop", "devices"]
    with subprocess.Popen([*command, f"local:{stopped}"], stderr=subprocess.DEVNULL, env=environment) as child:
        assert eventually(lambda: list(temporary.iterdir()))
        (folder,) = temporary.iterdir()
        (folder / "f").touch()
        child.send_signal(ended)
        child.wait(60)
    os.utime(folder, (0, 0))
    assert folder.is_dir()
    subprocess.run([*command, f"local:{device_python}"], env=environment, capture_output=True, check=True, timeout=300)
    assert not list(temporary.iterdir())
