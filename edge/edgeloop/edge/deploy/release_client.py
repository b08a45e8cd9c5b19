"""The release agent of a device, started there from the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgeloop.edge.on_device.releases.release_client import ReleaseClient
from edgeloop.leftovers import log_file
from edgeloop.processes.conversation import Conversation
from edgeloop.runtime.connection import connect
from edgeloop.runtime.device import Device


@contextlib.contextmanager
def release_client(device: Device, timeout_s: float) -> Iterator[ReleaseClient]:
    """The release agent of a device, for as long as the block runs; no answer takes longer than `timeout_s`.

    Raises:
        DeviceError: The device cannot be reached, or has no such Python.
    """
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(log_file())
        connection = stack.enter_context(connect(device, timeout_s))
        child = stack.enter_context(connection.start(["edge.on_device.releases.release_agent"], log))
        conversation = Conversation(child, device.name, timeout_s, log)
        stack.enter_context(conversation.signs_of_life())
        yield ReleaseClient(conversation)
