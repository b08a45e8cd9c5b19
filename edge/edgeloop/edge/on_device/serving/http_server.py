"""HTTP in, answers of the current release out, in the shape of TF Serving's REST API.

    POST /v1/predict  (or /v1/models/NAME:predict)    {"instances": [...]} -> {"predictions": [...]}
                                                      {"inputs": ...} -> {"outputs": ...}
    GET  /v1/model    name, release, variant, runtime, inputs and outputs of what answers now
    GET  /healthz     200 while it can answer, else 503; with what is wrong

Failures are {"error": one line}: 400 for what the client got wrong, 500 where the runtime refuses it, 503 for the
request that killed the model. A connection has a thread, so that a slow client holds up nobody; the model answers one
at a time.

Source: https://www.tensorflow.org/tfx/serving/api_rest. Python 3.9 syntax.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import select
import socket
import sys
import threading
import time
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edgeloop.edge.on_device.serving.hot_reload import HotReload, Made
from edgeloop.edge.on_device.serving.loaded_model import LoadedModel
from edgeloop.errors import DataError, DeviceError, EdgeloopError
from edgeloop.http.predict_api import columns, parse, predictions, rows

BODY_LIMIT_BYTES = 32 << 20
REQUEST_S = 15.0  # for all of a request to arrive, and for its answer to leave; an idle connection is closed after it
LOOK_S = 0.2  # how often a connection that waits for a request looks whether the server ends
CONNECTIONS = 64
RELEASE_HEADER = "X-Edgeloop-Release"
LOCAL = re.compile(r"(?:https?://)?(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.IGNORECASE)


class Server(ThreadingHTTPServer):
    """Made, served in a thread (`serve_forever`), ended. `ending`: no further request is read.

    Raises:
        DeviceError: It cannot listen there.
    """

    daemon_threads = True
    block_on_close = False  # `end` waits, and not for ever
    request_queue_size = CONNECTIONS

    def __init__(self, host: str, port: int, follower: HotReload) -> None:
        self.follower, self.ending = follower, False
        self.open, self.changed = 0, threading.Condition()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as e:
            why = getattr(e, "strerror", None) or e
            raise DeviceError(f"cannot listen on {host} port {port} ({why}). Choose another with --http.") from e
        self.loopback = self.server_address[0] == "::1" or str(self.server_address[0]).startswith("127.")

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def end(self, timeout_s: float) -> None:
        """No new connections; every request that has arrived is answered, for `timeout_s` at most."""
        self.ending = True
        self.shutdown()
        while select.select([self.socket], [], [], 0)[0]:  # connected before the end, and not met yet
            self._handle_request_noblock()  # type: ignore[attr-defined]
        self.server_close()
        with self.changed:
            self.changed.wait_for(lambda: self.open == 0, timeout_s)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.changed:
            full = self.open >= CONNECTIONS
            self.open += 0 if full else 1
        if full:
            with contextlib.suppress(OSError):
                request.settimeout(0.1)
                request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self.changed:
                self.open -= 1
                self.changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # a client that went away is no event
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection, of one request after another."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgeloop", ""
    timeout = REQUEST_S
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.arriving = _Arriving(self.connection, self.server)
        self.rfile = io.BufferedReader(self.arriving, 1 << 16)

    def handle_one_request(self) -> None:
        self.arriving.next()
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Whether the request is to be answered. A page of a stranger in a browser on this machine reaches loopback
        too, under its own name that it lets lead here (DNS rebinding) or as a form: both name it."""
        if not super().parse_request():
            return False
        named = [*self.headers.get_all("Host", []), *self.headers.get_all("Origin", [])]
        if self.server.loopback and not all(map(LOCAL.fullmatch, named)):
            self._refuse(403, "this server is this machine's own: ask http://localhost. --host makes it another's too.")
            return False
        if self.command != "POST" and ("Content-Length" in self.headers or "Transfer-Encoding" in self.headers):
            self.close_connection = True  # a body that nobody reads would be taken for the next request
        return True

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._reply(*_health(self.server.follower))
        elif self.path == "/v1/model":
            loaded = self.server.follower.peek()
            self._reply(*((200, describe(loaded)) if loaded else _health(self.server.follower)))
        else:
            self._reply(404, {"error": f"no {self.path}. There are /v1/predict, /v1/model and /healthz."})

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        try:
            self._reply(200, *self._predict(parse(body)))
        except DataError as e:
            self._reply(400, {"error": _line(e)})
        except DeviceError as e:
            self._reply(503, {"error": _line(e)})
        except EdgeloopError as e:
            self._reply(500, {"error": _line(e)})

    def _predict(self, document: Any) -> tuple[dict[str, Any], int]:
        by_row = isinstance(document, dict) and "instances" in document
        if not isinstance(document, dict) or by_row == ("inputs" in document):
            raise DataError('expected {"instances": [...]} or {"inputs": ...}, one of the two.')
        make = rows if by_row else columns
        value = document["instances" if by_row else "inputs"]

        def inputs(loaded: LoadedModel) -> Made:
            if document.get("signature_name", loaded.chosen.signature) != loaded.chosen.signature:
                raise DataError(
                    f"signature {document['signature_name']!r} is not served; {loaded.chosen.signature!r} is."
                )
            return make(loaded.inputs, value), True

        loaded, outputs, _, _ = self.server.follower.ask(inputs)
        return predictions(loaded.outputs, outputs, by_row), loaded.chosen.manifest.version

    def _body(self) -> bytes | None:
        """What was sent; None: it was answered with what is wrong with it."""
        loaded = self.server.follower.peek()
        names = ("/v1/predict", f"/v1/models/{loaded.chosen.manifest.name}:predict" if loaded else "")
        length = ",".join(self.headers.get_all("Content-Length", []))  # two are as bad as none
        if self.path not in names:
            self._refuse(404, f"no {self.path}. Post to /v1/predict.")
        elif not length.isdecimal() or "Transfer-Encoding" in self.headers:
            self._refuse(411, "a request says its Content-Length, and is not chunked.")
        elif len(length) > 20 or int(length) > BODY_LIMIT_BYTES:
            self._refuse(
                413, f"{length[:20]} bytes are more than the limit of {BODY_LIMIT_BYTES}. Send fewer at a time."
            )
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                return body
            self.close_connection = True  # it went away in the middle
        return None

    def _refuse(self, code: int, reason: str) -> None:
        """Without reading the body: the connection cannot go on."""
        self.close_connection = True
        self._reply(code, {"error": reason})

    def _reply(self, code: int, document: dict[str, Any], release: int | None = None) -> None:
        data = json.dumps(document, allow_nan=False).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if release is not None:
            self.send_header(RELEASE_HEADER, str(release))
        if self.close_connection or self.server.ending:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request, as JSON too."""
        self.request_version = self.request_version or "HTTP/1.1"
        self._refuse(int(code), " ".join((message or "bad request").split()))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: stderr is for news."""


class _Arriving(io.RawIOBase):
    """The bytes of a connection, with one deadline a request: a byte now and then does not hold a thread for ever."""

    def __init__(self, connection: socket.socket, server: Server) -> None:
        self.connection, self.server = connection, server
        self.ready = select.poll()
        self.ready.register(connection, select.POLLIN)
        self.next()

    def next(self) -> None:
        """What comes now is another request."""
        self.begun, self.deadline = False, time.monotonic() + REQUEST_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise socket.timeout("the request did not arrive in time")  # in Python 3.9 no TimeoutError
            if self.ready.poll(1e3 * min(left, LOOK_S)):
                if not self.begun:
                    self.begun, self.deadline = True, time.monotonic() + REQUEST_S
                return self.connection.recv_into(buffer)
            if self.server.ending and not self.begun:
                return 0


def describe(loaded: LoadedModel) -> dict[str, Any]:
    """What answers, as JSON values."""
    chosen = loaded.chosen
    return {
        "name": chosen.manifest.name,
        "release": chosen.manifest.version,
        "variant": chosen.variant.id,
        "scheme": chosen.variant.scheme.value,
        "runtime": chosen.runtime,
        "version": loaded.model.version,
        "threads": chosen.threads,
        "inputs": [asdict(spec) for spec in loaded.inputs],
        "outputs": [asdict(spec) for spec in loaded.outputs],
    }


def _health(follower: HotReload) -> tuple[int, dict[str, Any]]:
    loaded = follower.peek()
    wrong = {"restarts": follower.restarts, "trouble": follower.trouble}
    if loaded is None:
        return 503, {
            "status": "loading" if follower.error is None else "failed",
            "error": _line(follower.error),
            **wrong,
        }
    status = "ok" if follower.trouble is None else "an older release answers"
    return 200, {
        "status": status,
        "release": loaded.chosen.manifest.version,
        "variant": loaded.chosen.variant.id,
        **wrong,
    }


def _line(error: Exception | None) -> str:
    return " ".join(str(error or "the model is being loaded").split())
