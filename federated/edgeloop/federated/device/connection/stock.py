"""Flower's own SuperNode, for versions of Flower that this device's connection was not tried on.

It takes three processes and about twice the memory, and starts Python anew for every message.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from edgeloop.errors import DeviceError, MissingExtra, last_line, one_line
from edgeloop.federated.device.connection.link import Link
from edgeloop.federated.device.connection.supervise import Waits
from edgeloop.processes.children import owned
from edgeloop.processes.exit_status import exit_status
from edgeloop.processes.ports import free_ports
from edgeloop.progress import Say
from edgeloop.toml_value import toml_value

SAYS = "edgeloop: "  # begins a line of our code in a SuperNode's process
END_BYTES = 4096  # of what it said last
WORDS_S = 2.0  # for the rest of what an ended process wrote
STEADY_S = 60.0  # a SuperNode that ran this long was accepted: its end is a failure to recover from


def run_supernode(link: Link, config: Mapping[str, object], say: Say) -> None:
    """Run it until interrupted, and start it again when it ends.

    Raises:
        DeviceError: It ends at once: the server refuses it, or Flower does not run here.
        MissingExtra: There is none beside this Python.
    """
    say("this version of Flower was not tried with edgeloop's own connection: Flower's SuperNode is used")
    failures = 0
    while True:
        began = time.monotonic()
        said = _run_once(supernode(link, config, free_ports(1)[0]), say)
        if time.monotonic() - began < STEADY_S:
            raise DeviceError(f"Flower's SuperNode ended ({said})", advice="Run flower-supernode to see all it says.")
        say(f"Flower's SuperNode ended ({said}); starting it again")
        time.sleep(Waits().after(failures))
        failures += 1


def _run_once(command: Sequence[str], say: Say) -> str:
    """How it ended, and what it said last."""
    reading, writing = os.pipe()
    words = _Words(reading, say)
    words.start()
    try:
        with owned(command, stdout=writing, stderr=writing) as child:
            child.wait()
    finally:
        os.close(writing)  # whoever else had it has ended with the block
    words.join(WORDS_S)
    return f"{exit_status(child).how}: {last_line(words.end)}"


class _Words(threading.Thread):
    """Reads what a SuperNode writes, says on what our code in it says, and keeps the `end`: it may run for months."""

    def __init__(self, pipe: int, say: Say) -> None:
        super().__init__(daemon=True)
        self.pipe, self.say, self.end = pipe, say, b""

    def run(self) -> None:
        with open(self.pipe, "rb") as said:
            for line in iter(lambda: said.readline(END_BYTES), b""):
                self.end = (self.end + line)[-END_BYTES:]
                if line.startswith(SAYS.encode()):
                    self.say(one_line(line[len(SAYS) :].decode(errors="replace")))


def say_on_stderr(sentence: str) -> None:
    """Say it in a process of the SuperNode; the owner of the device reads it where `run_supernode` runs."""
    print(f"{SAYS}{sentence}", file=sys.stderr, flush=True)


def supernode(link: Link, config: Mapping[str, object], port: int) -> Sequence[str]:
    """Its command line."""
    program = os.path.join(os.path.dirname(sys.executable), "flower-supernode")
    if not os.path.isfile(program):
        raise MissingExtra(
            f"flower-supernode is not installed beside {sys.executable}",
            advice="Run: pip install 'edgeloop[federated]'",
        )
    command = [program, "--superlink", link.address, "--host", "127.0.0.1", "--port", str(port)]
    if link.insecure:
        command.append("--insecure")
    if link.certificate:
        command += ["--root-certificates", link.certificate]
    if link.key:
        command += ["--auth-supernode-private-key", link.key]
    return [*command, "--node-config", " ".join(f"{name}={toml_value(value)}" for name, value in config.items())]
