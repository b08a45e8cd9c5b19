"""A device that stays in its fleet: receive, answer, reply; after a failure wait, and go on."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from edgeloop.errors import EdgeloopError
from edgeloop.progress import Say

log = logging.getLogger(__name__)
UNAUTHORIZED = 401  # this node is not known: a server that was started anew wants it to register again


class Connection(Protocol):
    """A place in a fleet; `fleet.Fleet`, or a test's."""

    node_id: int | None

    def connect(self) -> None: ...
    def receive(self) -> Any: ...
    def reply(self, message: Any, seconds: float) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Waits:
    """Seconds between two looks for work, and after failures: doubled from `first` to `longest`, and jittered, so that
    a thousand devices do not come back at once."""

    poll: float = 1.0
    first: float = 0.5
    longest: float = 60.0

    def after(self, failures: int) -> float:
        return min(self.longest, self.first * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1.0)


def serve(
    connection: Connection,
    answer: Callable[[Any], Any],
    refusal: Callable[[BaseException, bool], EdgeloopError | None],
    reason: Callable[[BaseException], str],
    say: Say,
    waits: Waits = Waits(),
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Answer every message until the process is interrupted.

    Args:
        answer: A message to its reply.
        refusal: What ends the device for good, by the exception and whether it was connected before.
        reason: An exception in a person's words.

    Raises:
        EdgeloopError: The server refuses this device, or its own folder does.
    """
    failures, joined, pending = 0, False, None
    try:
        while True:
            try:
                if connection.node_id is None:
                    connection.connect()
                    say(f"connected as node {connection.node_id}")
                    joined = True
                if pending is None:
                    message = connection.receive()
                    if message is not None:
                        started = time.monotonic()
                        pending = answer(message), time.monotonic() - started
                if pending is not None:  # after a failure the same reply is sent again: it took the training
                    connection.reply(*pending)
                failures, idle, pending = 0, pending is None, None
                if idle:
                    sleep(waits.poll)
            except EdgeloopError:  # of this device itself: it cannot write its folder, say
                raise
            except Exception as e:  # whatever it is, a device that nobody looks after has to go on
                final = refusal(e, joined)
                if final is not None:
                    raise final from e
                pending = None if _is_refused(e) else pending
                if failures == 0:
                    say(f"the server cannot be reached ({reason(e)}); trying again")
                log.info("the connection failed %d times", failures + 1, exc_info=e)
                failures += 1
                if _status(e) == UNAUTHORIZED:
                    connection.node_id = None
                sleep(waits.after(failures))
    finally:
        connection.close()


def _is_refused(error: BaseException) -> bool:
    """Whether the server took note and said no: the reply comes too late, and no repetition helps."""
    status = _status(error)
    return status is not None and 400 <= status < 500


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
