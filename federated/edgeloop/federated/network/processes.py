"""Which Flower programs run, from which environment, with which settings.

    flower-superlink     from edgeloop's own environment; takes a run, passes messages on. superlink.py stands around it
                         where devices of other machines join
    flower-superexec     beside it; starts the run's ServerApp
    agent.pyz            a device, in the device environment, one per shard: connection and training in one process

All listen on loopback, but for the address of `[network]`, and write nothing to the user's home.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edgeloop.errors import MissingExtra
from edgeloop.federated.device.connection.link import split_address
from edgeloop.federated.network.options import NetworkOptions
from edgeloop.runtime.device import Device
from edgeloop.runtime.program import ISOLATED, local_program

CONNECTED = Path("connected.json")  # in a work folder: how many devices are connected
POLL_S = 0.1  # between two questions of a device whether there is work


def commands(
    devices: Sequence[Device],
    shards: Sequence[Path],
    port: int,
    folder: Path,
    joining: NetworkOptions | None = None,
    connected: Path = CONNECTED,
) -> dict[str, tuple]:
    """Name of each process: the Python of its environment, and its command line.

    Args:
        folder: Devices keep what they have there.
        joining: Devices of other machines, which `connected` counts.
    """
    here, address = Path(sys.executable), f"127.0.0.1:{port}"
    link = ["--insecure", "--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
    found = {
        # isolation "process", because the superexec that a SuperLink starts itself leaves its process group
        # (start_new_session) and could outlive it; this way it is ours
        "superlink": (here, [program(here, "flower-superlink"), *link, "--isolation", "process"])
        if joining is None
        else (here, _superlink(here, joining, port, connected)),
        "serverapp": (here, [program(here, "flower-superexec"), "--insecure", "--runtime-api-address", address]),
    }
    for index, shard in enumerate(shards):
        python = devices[index % len(devices)].python
        program(python, "flower-supernode")  # Flower is there
        state = str(folder.absolute() / f"device-{index}")
        own = {"data": str(shard.absolute()), "device": index, "state": state, "tell_details": True}
        options = json.dumps({"url": address, "insecure": True, "poll_s": POLL_S, "device": own})
        module = [str(local_program()), "federated.device.join"]
        found[f"device-{index}"] = (python, [str(python), *ISOLATED, *module, options])
    return found


def _superlink(python: Path, joining: NetworkOptions, port: int, connected: Path) -> list[str]:
    program(python, "flower-superlink")  # Flower is there
    host, listen = split_address(joining.listen)
    files = {"certificate": joining.certificate, "key": joining.key, "device-keys": joining.device_keys}
    paths = {name: None if path is None else str(path.absolute()) for name, path in files.items()}
    job = {"port": port, "host": host.strip("[]"), "listen": int(listen), **paths, "connected": str(connected)}
    return [str(python), "-m", "edgeloop.federated.network.superlink", json.dumps(job)]


def home(work: Path, name: str) -> Path:
    """A FLWR_HOME in the work folder: nothing is written to the user's own."""
    folder = work / f"home-{name}"
    folder.mkdir(exist_ok=True)
    return folder


def environment(python: Path, flwr_home: Path) -> dict[str, str]:
    """Of a Flower program beside `python`, which finds its own siblings first on the PATH."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)]),
        "FLWR_HOME": str(flwr_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",  # seconds; Flower's default is 1
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1",  # Flower's HTTP client would send loopback through a proxy of the environment
        "no_proxy": "127.0.0.1",
    }


def program(python: Path, name: str) -> str:
    """The program of that name in the environment of `python`.

    Raises:
        MissingExtra: Flower is not installed there.
    """
    path = python.parent / name
    if not path.is_file():
        raise MissingExtra(
            f"{name} is not installed beside {python}",
            advice="Run in that environment: pip install 'edgeloop[federated]'",
        )
    return str(path)
