"""The agent that keeps this device's releases, started by the device itself: the program that a deploy starts.

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from edgeloop.edge.on_device.releases.release_client import ReleaseClient
from edgeloop.errors import DeviceError
from edgeloop.leftovers import log_file
from edgeloop.processes.children import owned
from edgeloop.processes.conversation import Conversation
from edgeloop.runtime.agent.child_model import PROGRAM


@contextlib.contextmanager
def own_release_agent(timeout_s: float) -> Iterator[ReleaseClient]:
    """It ends with the block; no answer takes longer than `timeout_s`.

    Raises:
        DeviceError: No process can be started.
    """
    command = [sys.executable, "-I", *PROGRAM, "edge.on_device.releases.release_agent"]
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(log_file())
        try:
            child = stack.enter_context(owned(command, stdin=pipe, stdout=pipe, stderr=log))
        except OSError as e:
            raise DeviceError(
                f"the agent that keeps releases cannot be started ({e.strerror})", advice="Free memory there."
            ) from e
        conversation = Conversation(child, "", timeout_s, log)
        stack.enter_context(conversation.signs_of_life())
        yield ReleaseClient(conversation)
