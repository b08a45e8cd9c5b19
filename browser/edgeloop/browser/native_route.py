"""The route `native`: times of a variant of the page's bundle on its runtime on this machine, without a browser.

    POST api/native/int8?runs=5&threads=1
    {"runtime", "version", "device", "threads", "import_ms", "load_ms", "first_ms", "wall_ms": [5 of them]}

The first request of a variant loads it (native_model.py); later ones find it loaded, so that a page's race can give it
turns. One request is measured at a time. The bundle's own variants can be asked for, and nothing else.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
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
MOST_THREADS = 64
MOST_LOADED = 4  # models at a time, each a process; the one not asked for longest makes room
IDLE_S = 30.0  # without a request all of them end
TURN_S = 60.0  # a request waits this long for those before it
CLOSE_S = 2.0  # for the request at hand to see that its process has ended


class NativeRoute:
    """Answers for one bundle; `close` ends its processes."""

    requires_token = False
    limits_bytes: Mapping[str, int] = {"POST": 0}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bundle: Bundle | None = None
        # by variant and threads; asked for last, last
        self._loaded: OrderedDict[tuple[str, int], NativeModel] = OrderedDict()
        self._turn = threading.Lock()
        self._closed = False
        self._timed = 0  # idle timers started so far: one that was followed by another ends nothing
        self._idle: threading.Timer | None = None

    def answer(self, request: Request) -> Response:
        """Raises OptionsError, DeviceError, TargetError, MissingExtra: the server answers with each as JSON."""
        runs, threads = _count(request, "runs", MOST_RUNS), _count(request, "threads", MOST_THREADS)
        with self._its_turn(request):
            self._bundle = self._bundle or read_bundle(self.folder)
            if request.path not in {variant.id for variant in self._bundle.variants}:
                return not_found(request)
            try:
                model = self._model(self._bundle, request.path, threads)
                return json_response({**asdict(model.start), "wall_ms": model.run(runs)})
            except (DeviceError, TargetError):
                self._end((request.path, threads))
                raise
            finally:
                self._restart_idle()

    def close(self) -> None:
        """End all of them; the request at hand fails, and is waited for `CLOSE_S` at most."""
        self._closed = True
        for model in list(self._loaded.values()):
            model.interrupt()
        its_end = self._turn.acquire(timeout=CLOSE_S)
        try:
            if self._idle is not None:
                self._idle.cancel()
            self._end_all()
        finally:
            if its_end:
                self._turn.release()

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

    def _model(self, bundle: Bundle, variant: str, threads: int) -> NativeModel:
        from edgeloop.browser.native_model import load_native  # not at every start of the page's server

        key = (variant, threads)
        model = self._loaded.get(key) or load_native(bundle, variant, threads)
        self._loaded[key] = model  # before it is moved to the end: `close` finds it at any time
        self._loaded.move_to_end(key)
        if self._closed:
            raise DeviceError("the server has ended", advice="Start edgeloop browse again.")
        while len(self._loaded) > MOST_LOADED:
            self._end(next(iter(self._loaded)))
        return model

    def _end(self, key: tuple[str, int]) -> None:
        model = self._loaded.pop(key, None)
        if model is not None:
            model.close()

    def _end_all(self) -> None:
        for key in list(self._loaded):
            self._end(key)

    def _end_idle(self, timer: int) -> None:
        with self._turn:
            if timer == self._timed:
                self._end_all()

    def _restart_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._closed:
            return
        self._timed += 1
        self._idle = threading.Timer(IDLE_S, self._end_idle, (self._timed,))
        self._idle.daemon = True
        self._idle.start()


def _count(request: Request, name: str, most: int) -> int:
    text = request.query.get(name, "1")
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and 0 < int(text) <= most):
        raise OptionsError(f"{name} is {text[:20]!r}", advice=f"It must be 1 to {most}.")
    return int(text)


@contextlib.contextmanager
def mount(site: Site) -> Iterator[NativeRoute]:
    """The entry point `native` of `edgeloop.routes`."""
    route = NativeRoute(site.bundle)
    try:
        yield route
    finally:
        route.close()
