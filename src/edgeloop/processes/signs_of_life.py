"""Signs of life between the two ends of a conversation, where a link may be lost without a word.

Behind ssh the host may vanish (a laptop is closed, an address changes), and a device's kernel tells of it after minutes
to hours: measured 15 minutes with data in flight, 2 hours without. So the asking end sends an empty line every EVERY_S,
and the answering end, once it got one, ends after SILENCE_S without a byte, in the middle of an operation too. Whoever
keeps something on a device has to survive that as it survives a kill. Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SIGN = b"\n"
EVERY_S = 15.0
SILENCE_S = 60.0
LOOK_S = 5.0  # how often the answering end looks: rarely, as it may be measuring


class WatchedInput(io.RawIOBase):
    """Standard input that ends this process when nothing comes any more; `watch` begins with that."""

    def __init__(self) -> None:
        self._input, self._read_bytes, self._watched = os.dup(0), 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.read(self._input, len(buffer))
        buffer[: len(data)] = data
        self._read_bytes += len(data)
        return len(data)

    def watch(self) -> None:
        """Call it at every sign: the first begins the watch."""
        if not self._watched:
            self._watched = True
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        seen, since = self._seen(), time.monotonic()
        while time.monotonic() - since <= SILENCE_S:
            time.sleep(LOOK_S)
            now = self._seen()
            if now != seen:
                seen, since = now, time.monotonic()
        print(f"edgeloop: nothing came from the host for {SILENCE_S:g} s", file=sys.stderr, flush=True)
        os._exit(1)

    def _seen(self) -> tuple[int, int]:
        """Bytes that were read, and bytes that wait to be: both stand still where nothing comes."""
        waiting = fcntl.ioctl(self._input, termios.FIONREAD, struct.pack("i", 0))
        return self._read_bytes, struct.unpack("i", waiting)[0]


@contextlib.contextmanager
def sending_signs(send: Callable[[], None]) -> Iterator[None]:
    """Call `send` now and every EVERY_S while the block runs, in a thread of its own. An OSError ends that: the other
    end is gone, which the next request says."""
    done = threading.Event()

    def repeat() -> None:
        with contextlib.suppress(OSError):
            send()
            while not done.wait(EVERY_S):
                send()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()  # `send` does not wait
