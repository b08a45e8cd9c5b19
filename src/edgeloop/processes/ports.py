"""Ports of this machine: free ones to hand out, and whether somebody listens on one. Python 3.9 syntax."""

from __future__ import annotations

import contextlib
import socket
import time

LOOPBACK = "127.0.0.1"
LOOK_S = 0.1


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on at this moment, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]


def accepts(address: str) -> bool:
    """Whether a program accepts connections at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
            return True
    except OSError:
        return False


def wait_until_all_accept(addresses: list[str], timeout_s: float) -> list[str]:
    """The addresses that still accept no connection after `timeout_s`; empty as soon as all of them do."""
    deadline = time.monotonic() + timeout_s
    silent = list(addresses)
    while True:
        silent = [address for address in silent if not accepts(address)]
        if not silent or time.monotonic() > deadline:
            return silent
        time.sleep(LOOK_S)
