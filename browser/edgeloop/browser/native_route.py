"""The route `native`: times of a variant of the page's bundle on its runtime on this machine, without a browser.

    POST api/native/int8?runs=5
    {"runtime", "version", "device", "threads", "import_ms", "load_ms", "first_ms", "wall_ms": [5 of them]}

The first request of a variant loads it (native_model.py); later ones find it loaded, so that a page's race can give it
turns. One request is measured at a time. The bundle's own variants can be asked for, and nothing else.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.bundle import Bundle, read_bundle
from edgeloop.errors import DeviceError, OptionsError, TargetError
from edgeloop.http.routes import Request, Response, Site, json_response, not_found

if TYPE_CHECKING:
    from edgeloop.browser.native_model import NativeModel

MOST_RUNS = 100  # of one request
MOST_LOADED = 4  # models at a time, each a process; the one not asked for longest makes room
IDLE_S = 30.0  # without a request all of them end
TURN_S = 60.0  # a request waits this long for those before it


class NativeRoute:
    """Answers for one bundle; `close` ends its processes."""

    requires_token = False
    limits_bytes: Mapping[str, int] = {"POST": 0}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bundle: Bundle | None = None
        self._loaded: dict[str, NativeModel] = {}  # asked for last, last
        self._turn = threading.Lock()
        self._idle: threading.Timer | None = None

    def answer(self, request: Request) -> Response:
        """Raises OptionsError, DeviceError, TargetError, MissingExtra: the server answers with each as JSON."""
        runs = request.query.get("runs", "1")
        if not (runs.isascii() and runs.isdecimal() and 0 < int(runs[:4]) <= MOST_RUNS):
            raise OptionsError(f"runs is {runs[:20]!r}", advice=f"Ask for 1 to {MOST_RUNS} runs.")
        with self._its_turn(request):
            self._bundle = self._bundle or read_bundle(self.folder)
            if request.path not in {variant.id for variant in self._bundle.variants}:
                return not_found(request)
            try:
                model = self._model(self._bundle, request.path)
                return json_response({**asdict(model.start), "wall_ms": model.run(int(runs))})
            except (DeviceError, TargetError):
                self._end(request.path)
                raise
            finally:
                self._restart_idle()

    def close(self) -> None:
        """End all of them, after the request at hand."""
        with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            for variant in list(self._loaded):
                self._end(variant)

    @contextlib.contextmanager
    def _its_turn(self, request: Request) -> Iterator[None]:
        until = time.monotonic() + TURN_S
        while not self._turn.acquire(timeout=0.5):
            if request.closing() or time.monotonic() > until:
                raise DeviceError("this machine is measuring another variant", advice="Try again later.")
        try:
            yield
        finally:
            self._turn.release()

    def _model(self, bundle: Bundle, variant: str) -> NativeModel:
        from edgeloop.browser.native_model import load_native  # not at every start of the page's server

        model = self._loaded.pop(variant, None) or load_native(bundle, variant)
        self._loaded[variant] = model
        while len(self._loaded) > MOST_LOADED:
            self._end(next(iter(self._loaded)))
        return model

    def _end(self, variant: str) -> None:
        model = self._loaded.pop(variant, None)
        if model is not None:
            model.close()

    def _restart_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = threading.Timer(IDLE_S, self.close)
        self._idle.daemon = True
        self._idle.start()


@contextlib.contextmanager
def mount(site: Site) -> Iterator[NativeRoute]:
    """The entry point `native` of `edgeloop.routes`."""
    route = NativeRoute(site.bundle)
    try:
        yield route
    finally:
        route.close()
