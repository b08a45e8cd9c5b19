"""Many devices as processes that follow one source, for as long as standard input is open.

    python following_fleet.py SOURCE HOME...

Each has a home of its own, keeps releases in its own process, and runs models that cost nothing (matrix_bundles.py):
what is tested is the following, and fifty runtimes would take the memory of the machine.
"""

from __future__ import annotations

import os
import signal
import sys

from matrix_bundles import VARIANT, matrix_runtime
from pulling import agent_here

from edgeloop.edge.on_device.pull import offered_release, poll_schedule
from edgeloop.edge.on_device.pull.pull_options import PullOptions
from edgeloop.edge.on_device.pull.release_puller import ReleasePuller
from edgeloop.edge.on_device.pull.release_source import SourceAddress
from edgeloop.edge.on_device.releases import staging
from edgeloop.edge.on_device.releases.protocol import Probation
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints

POLL_S = 0.5


def follow(source: str, home: str) -> None:
    """Until SIGTERM."""
    options = PullOptions(
        address=SourceAddress(source),
        poll_s=POLL_S,
        constraints=DeployConstraints(variant=VARIANT),
        probation=Probation(runs=3),
    )
    signal.signal(signal.SIGTERM, lambda *told: os._exit(0))
    puller = ReleasePuller(options, home, lambda line: None, agent_here(home, matrix_runtime))
    puller.start()
    while True:
        signal.pause()


def main() -> None:
    source, *homes = sys.argv[1:]
    offered_release.is_installed = staging.is_installed = lambda runtime: True
    poll_schedule.LONGEST_RETRY_S = 2.0  # the test shall not wait for a quarter of an hour
    children = []
    for home in homes:
        child = os.fork()
        if not child:
            follow(source, home)
        children.append(child)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGTERM)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
