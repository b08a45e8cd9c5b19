"""What systemd is told of a service: that it is ready, alive, ending. Nothing where systemd did not start us.

Source: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html. Python 3.9 syntax.
"""

from __future__ import annotations

import os
import socket
import threading


def notify(state: str) -> None:
    """One message, such as READY=1, to the socket that NOTIFY_SOCKET names."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
        datagrams.connect("\0" + address[1:] if address.startswith("@") else address)
        datagrams.send(state.encode())


def keep_watchdog(done: threading.Event) -> None:
    """WATCHDOG=1 twice in the time that systemd allows, until `done`. Returns at once where it asks for none."""
    allowed = os.environ.get("WATCHDOG_USEC")
    if allowed and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
        threading.Thread(target=_ping, args=(int(allowed) / 2e6, done), daemon=True).start()


def _ping(every_s: float, done: threading.Event) -> None:
    while not done.wait(every_s):
        notify("WATCHDOG=1")
