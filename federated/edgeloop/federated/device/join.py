"""A device as one process: Flower's connection and the training in it.

python agent.pyz federated.device.join '{"url": "127.0.0.1:9092", "insecure": true, "poll_s": 0.1, "device": {...}}'
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from edgeloop.atomic import make_folder
from edgeloop.errors import EdgeloopError, MissingExtra, OptionsError
from edgeloop.federated.device.connection.link import Link, parse_link
from edgeloop.federated.device.freed_memory import return_freed_memory
from edgeloop.federated.device.options import DeviceOptions, to_node_config
from edgeloop.processes.file_lock import exclusive
from edgeloop.progress import Say

TESTED = ("1.41.0", "1.42.0")  # of Flower: those whose internal names connection/fleet.py was tried on
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


@dataclass(frozen=True)
class JoinOptions:
    """A device and its server.

    Attributes:
        poll_s: Seconds between two questions whether there is work.
    """

    link: Link
    device: DeviceOptions
    poll_s: float = 1.0


def flower_version() -> str:
    """Of the Flower that is installed.

    Raises:
        MissingExtra: None is.
    """
    try:
        return version("flwr")
    except PackageNotFoundError as e:
        raise MissingExtra("Flower is not installed", advice="Run: pip install 'edgeloop[federated]'") from e


def quiet_flower() -> None:
    """Flower in this process asks nobody for updates and reports nothing."""
    os.environ.update(QUIET)


def join(options: JoinOptions, say: Say) -> None:
    """Take part in rounds until interrupted.

    Raises:
        EdgeloopError: The server refuses the device, its data is bad, or Flower is missing.
    """
    quiet_flower()
    if flower_version() not in TESTED:
        from edgeloop.federated.device.connection.stock import run_supernode

        run_supernode(options.link, to_node_config(options.device), say)
        return
    from edgeloop.federated.device.connection.fleet import Fleet
    from edgeloop.federated.device.connection.refusals import reason, refusal
    from edgeloop.federated.device.connection.supervise import Waits, serve
    from edgeloop.federated.device.participant import Participant

    state = options.device.folder()
    make_folder(state)
    return_freed_memory()
    with held_state(state):
        fleet = Fleet(options.link, os.path.join(state, "node.json"))
        serve(
            fleet,
            Participant(options.device, say).answer,
            lambda error, joined: refusal(error, options.link, joined=joined),
            reason,
            say,
            Waits(poll=options.poll_s),
        )


@contextlib.contextmanager
def held_state(state: str) -> Iterator[None]:
    """One process a folder: two would be one node.

    Raises:
        OptionsError: Another one has it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(os.path.join(state, "lock"), timeout_s=0))
        except TimeoutError as e:
            raise OptionsError(
                f"another device uses {state}", advice="End it, or give each device a folder of its own: --state DIR."
            ) from e
        yield


def main(arguments: list[str]) -> None:
    """The loopback device of `federate run`: options as JSON, progress on stderr."""
    given = json.loads(arguments[0])
    link = parse_link(given["url"], insecure=given["insecure"], certificate=None, key=None)
    options = JoinOptions(link, DeviceOptions(**given["device"]), given["poll_s"])
    try:
        join(options, lambda sentence: print(sentence, file=sys.stderr, flush=True))
    except EdgeloopError as e:
        print(e, file=sys.stderr)
        sys.exit(e.exit_code)
