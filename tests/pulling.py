"""A web server of a registry's files, which may be made hostile, and a device that fetches from it without children."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

from edgeloop.edge.on_device.releases.release_agent import ReleaseAgent
from edgeloop.edge.on_device.releases.release_client import ReleaseClient
from edgeloop.hashes import digest_of
from edgeloop.processes.messages import from_header, to_header


@dataclass
class FileServer:
    """Files below `folder`, with ETags and ranges, as nginx serves them.

    Attributes:
        answers: By path, what answers instead: called with the request's handler.
        asked: (path, status, value of Range) of each request in order.
    """

    folder: Path
    url: str = ""
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[tuple[str, int, str]] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]


@contextlib.contextmanager
def file_server(folder: Path, tls: Path | None = None) -> Iterator[FileServer]:
    """It runs while the block does. `tls`: a PEM file with its key and certificate."""
    served = FileServer(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            special = served.answers.get(self.path)
            if special is not None:
                served.asked.append((self.path, 0, self.headers.get("Range", "")))
                with contextlib.suppress(OSError):  # the device has hung up
                    special(self)
                return
            file = served.folder / self.path.lstrip("/")
            if not file.is_file():
                self.say(404)
                return
            data = file.read_bytes()
            etag = f'"{digest_of(data)[:12]}"'
            if self.headers.get("If-None-Match") == etag:
                self.say(304, ETag=etag)
                return
            start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
            headers = {"ETag": etag, "Content_Length": str(len(data) - start)}
            if start:
                headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.say(206 if start else 200, **headers)
            with contextlib.suppress(OSError):
                self.wfile.write(data[start:])

        def say(self, status: int, **headers: str) -> None:
            served.asked.append((self.path, status, self.headers.get("Range", "")))
            head(self, status, **headers)

        def log_message(self, *words: object) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    served.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


def head(handler: BaseHTTPRequestHandler, status: int, **headers: str) -> None:
    """A response's header; `Retry_After` is Retry-After."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


class LocalConversation:
    """Stands in for the process of the agent that keeps releases."""

    where = ""
    timeout_s = 60.0
    child = SimpleNamespace(terminate=lambda: None)

    def __init__(self, keep: ReleaseAgent) -> None:
        self.operations = keep.operations()
        self.asked: list[str] = []

    def request(self, request, payload=b"", refused=None):
        self.asked.append(request.OP)
        header, data = self.operations[request.OP](to_header(request), payload)
        return from_header(request.REPLY, dict(header)), data


def agent_here(home: Path, runtime: Callable) -> Callable:
    """A `start_agent` for ReleasePuller whose agent loads models with `runtime`; `.asked`: every request so far."""

    @contextlib.contextmanager
    def start(timeout_s: float) -> Iterator[ReleaseClient]:
        keep = ReleaseAgent(str(home), runtime)
        conversation = LocalConversation(keep)
        conversation.asked = start.asked
        try:
            yield ReleaseClient(conversation)
        finally:
            for lock in keep.locks.values():
                lock.close()

    start.asked = []
    return start
