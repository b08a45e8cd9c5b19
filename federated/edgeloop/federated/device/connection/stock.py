"""Flower's own SuperNode, for versions of Flower that this device's connection was not tried on.

It takes three processes and about twice the memory, and starts Python anew for every message.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from edgeloop.errors import DeviceError, MissingExtra, last_line
from edgeloop.federated.device.connection.link import Link
from edgeloop.federated.device.connection.supervise import Waits
from edgeloop.processes.children import owned
from edgeloop.processes.exit_status import exit_status
from edgeloop.processes.ports import free_ports
from edgeloop.progress import Say

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
        with tempfile.TemporaryFile(prefix="edgeloop-supernode-") as log:
            with owned(supernode(link, config, free_ports(1)[0]), stdout=log, stderr=log) as child:
                child.wait()
            log.seek(max(0, log.tell() - 4096))
            said = f"{exit_status(child).how}: {last_line(log.read())}"
        if time.monotonic() - began < STEADY_S:
            raise DeviceError(f"Flower's SuperNode ended ({said})", advice="Run flower-supernode to see all it says.")
        say(f"Flower's SuperNode ended ({said}); starting it again")
        time.sleep(Waits().after(failures))
        failures += 1


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


def toml_value(value: object) -> str:
    """A TOML value without an inner quote: Flower's --node-config ends a value at the next one, escaped or not."""
    if not isinstance(value, str):
        return json.dumps(value)
    inner = json.dumps(value, ensure_ascii=False)[1:-1].replace('\\"', "\\u0022")
    return f'"{inner}"'
