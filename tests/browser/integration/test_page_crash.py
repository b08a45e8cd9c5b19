"""A page whose renderer is killed ends its agent: Playwright's event says so, whatever the words of its error."""

import subprocess
import sys

import pytest

from edgeloop.browser.chromium import find_chromium
from edgeloop.errors import MissingExtra

pytest.importorskip("playwright")
PROGRAM = """
import contextlib, os, signal, sys, threading, time
from pathlib import Path
from edgeloop.browser.agent import PageAgent
from edgeloop.runtime.agent.protocol import ProbeRequest

def ancestors(pid):
    while pid > 1:
        with contextlib.suppress(OSError):
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
            yield pid
            continue
        return

def kill_renderer():
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = os.getpid() in ancestors(int(process.name))
            if ours and b"--type=renderer" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)

with contextlib.ExitStack() as stack:
    agent = PageAgent(Path(sys.argv[1]), "about:blank", 60, stack)
    agent.probe(ProbeRequest(), b"")
    print(agent._call("x => x * 2", 4), flush=True)
    threading.Timer(1, kill_renderer).start()
    agent._call("x => new Promise(() => 0)", 4)
"""


def test_a_killed_page_ends_its_agent():
    try:
        chromium = find_chromium()
    except MissingExtra as e:
        pytest.skip(str(e))
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(chromium)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (1, "8\n")
    assert done.stderr.splitlines()[-1].startswith("Chromium's page died: ")
