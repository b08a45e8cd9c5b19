"""Flower's SuperLink for devices of other machines, as a process: the network reaches the Fleet API alone.

Flower serves all its APIs at one port, and whoever reaches the Control API may run an app, that is any code, on this
machine, or register a key. So here loopback has all of them, for the ServerApp and Flower's command line, and the
address of `[network]` has what devices need, with TLS. The names of Flower below are internal; they are those of 1.42.

python -m edgeloop.federated.network.superlink '{"port": 9000, "host": "0.0.0.0", "listen": 9092, "certificate": null,
"key": null, "device-keys": null, "connected": "work/connected.json"}'
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Container, Mapping
from pathlib import Path
from typing import Any

from edgeloop.atomic import write_file
from edgeloop.errors import one_line
from edgeloop.federated.network.device_keys import readable_device_keys

FLEET = "/v1/fleet/"
BODY_BYTES = 64 << 20  # of one request; Flower cuts what is larger than 5 MiB into parts
LOOK_S = 1.0  # between two looks at the keys and the devices
EMPTY_LOOKS = 5  # in a row at a folder without a key, before all keys are revoked
HEARTBEAT_S = 30.0  # of a key that has not joined yet, as Flower registers it


def main(arguments: list[str]) -> None:
    """Serve until the process is ended."""
    job = json.loads(arguments[0])
    app = _flower(job["port"], authenticated=job["device-keys"] is not None)
    fleet = Fleet(app.state.linkstate_factory.state(), Path(job["connected"]))
    keys = None if job["device-keys"] is None else Path(job["device-keys"])
    fleet.look(keys)  # before the first device asks
    threading.Thread(target=fleet.watch, args=(keys,), name="fleet", daemon=True).start()
    asyncio.run(_serve(app, job))


class Fleet:
    """Which devices the SuperLink knows; `connected` gets {"connected": count, "wrong": [reason, ...]} of devices and
    of files that are no keys, whenever that changes."""

    def __init__(self, state: Any, connected: Path) -> None:
        self.state, self.connected = state, connected
        self.nodes: dict[bytes, tuple[int, str]] = {}  # registered: node id and name of each key
        self.revoked = set[bytes]()  # Flower takes none of them again
        self._told: object = None
        self._empty = 0  # looks at a folder without a key, in a row
        self._failed = ""

    def watch(self, keys: Path | None) -> None:
        """Look again and again, for as long as the process lives."""
        while True:
            time.sleep(LOOK_S)
            self.look_again(keys)

    def look_again(self, keys: Path | None) -> None:
        """Look, and log what fails, once until it changes: the next look may go well."""
        failed = ""
        try:
            self.look(keys)
        except Exception as e:  # whatever it is, keys that are removed later have to be revoked
            failed = one_line(f"{type(e).__name__}: {e}")
        if failed not in ("", self._failed):
            print(f"a look at the keys and the devices failed: {failed}", file=sys.stderr, flush=True)
        self._failed = failed

    def look(self, keys: Path | None) -> None:
        """Read the folder of keys, where there is one, and count the devices.

        All keys stay as they were where the folder cannot be read, or has just become empty: it may be a disk that is
        away for a moment, and Flower takes a revoked key never again.
        """
        wrong: list[str] = []
        if keys is not None:
            try:
                known, unreadable = readable_device_keys(keys)
            except OSError as e:
                wrong = [f"the folder of device keys {keys} cannot be read ({one_line(e)})"]
            else:
                wrong = sorted(unreadable.values())
                self._empty = 0 if known or unreadable else self._empty + 1
                if not 0 < self._empty < EMPTY_LOOKS:
                    self.register(known, unreadable)
        self.tell(wrong)

    def register(self, keys: Mapping[bytes, str], unreadable: Container[str] = ()) -> None:
        """Know these keys, given with their names, and no others: those that are gone are revoked.

        Args:
            unreadable: Names whose keys cannot be read now, and stay as they were.
        """
        from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID

        for key in set(self.nodes) - set(keys):
            node, name = self.nodes[key]
            if name not in unreadable:
                self.state.activate_node(node, HEARTBEAT_S)  # Flower deletes none that never joined
                self.state.delete_node(NOOP_FLWR_AID, node)
                self.revoked.add(key)
                del self.nodes[key]
        for key in set(keys) - set(self.nodes) - self.revoked:
            node = self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, HEARTBEAT_S, name=keys[key])
            self.nodes[key] = node, keys[key]

    def tell(self, wrong: list[str]) -> None:
        """Write how many devices are connected, and what is wrong with files of keys, if that has changed."""
        from flwr.supercore.constant import NodeStatus

        found = {"connected": len(self.state.get_node_info(statuses=[NodeStatus.ONLINE])), "wrong": wrong}
        if found != self._told:
            write_file(self.connected, json.dumps(found).encode())
            self._told = found


class FleetOnly:
    """An ASGI app that hands on requests of devices, of a limited size, and answers anything else with 404."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(FLEET):
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})
            return
        left = BODY_BYTES

        async def limited() -> Any:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            return message if left >= 0 else {"type": "http.disconnect"}

        await self.app(scope, limited, send)


def _flower(port: int, *, authenticated: bool) -> Any:
    from dataclasses import replace

    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, _parse_superlink_lifespan_config
    from flwr.superlink.main import create_app

    options = ["--insecure", "--host", "127.0.0.1", "--port", str(port), "--isolation", "process"]
    sys.argv = ["flower-superlink", *options, "--disable-runtime-dependency-installation"]
    # Flower refuses keys beside --insecure, which is true of loopback alone
    config = replace(_parse_superlink_lifespan_config(), enable_supernode_auth=authenticated)
    return create_app(config, SuperLinkLifespan)


async def _serve(app: Any, job: Mapping[str, Any]) -> None:
    """Both addresses; when one ends, the other does."""
    import uvicorn

    tls = {"ssl_certfile": job["certificate"], "ssl_keyfile": job["key"]} if job["certificate"] else {}
    quiet: dict[str, Any] = {"log_config": None, "access_log": False}
    local = uvicorn.Config(app, host="127.0.0.1", port=job["port"], **quiet)
    network = uvicorn.Config(FleetOnly(app), host=job["host"], port=job["listen"], lifespan="off", **tls, **quiet)
    servers = [uvicorn.Server(local), uvicorn.Server(network)]
    running = [asyncio.create_task(server.serve()) for server in servers]
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.should_exit = True
    for task in [*done, *running]:
        await task


if __name__ == "__main__":
    main(sys.argv[1:])
