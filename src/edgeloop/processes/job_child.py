"""The other end of `job.py`: a job from stdin, events to what stdout was."""

from __future__ import annotations

import json
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any

from edgeloop.errors import EdgeloopError
from edgeloop.processes.job import READ


class Events:
    """What work tells its parent while it goes on; `progress` is a `Progress`."""

    def __init__(self) -> None:
        self._events = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what a framework prints goes to the log

    def send(self, **event: Any) -> None:
        self._events.write(json.dumps(event) + "\n")
        self._events.flush()

    def progress(self, what: str, done: int, total: int) -> None:
        self.send(progress=[what, done, total])

    def say(self, line: str) -> None:
        self.send(say=line)

    def read(self) -> None:
        """The model is loaded: from here on the limits of work hold."""
        self.send(**{READ: True})


def serve(work: Callable[[Any, Events], dict[str, Any]]) -> None:
    """Do one job and end the process; what `work` returns (JSON values) or raises goes to the parent."""
    events = Events()
    try:
        # from our parent, which made it; nothing that a model said is in it
        events.send(done=work(pickle.load(sys.stdin.buffer), events))
    except EdgeloopError as e:
        events.send(error=e.to_json())
    except Exception:  # ours to mend: the parent reports it as a bug
        events.send(bug=traceback.format_exc())
    os._exit(0)  # TensorFlow takes a second to leave
