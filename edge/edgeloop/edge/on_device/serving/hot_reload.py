"""Requests in, outputs of the current release out; a new release takes over between two requests.

It is loaded beside the old one, in a process of its own, and takes over when it is ready: no request waits for it, none
is lost. Where it does not load, the old one stays and `trouble` says why. A model that crashes fails the request that
killed it and is loaded again; the next requests wait for that. Python 3.9 syntax.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeloop.edge.on_device.serving.loaded_model import LoadedModel, load_model
from edgeloop.edge.on_device.serving.request_queue import RequestQueue
from edgeloop.edge.on_device.serving.served_release import ServeRequest, release_key
from edgeloop.errors import DeviceError, EdgeloopError

POLL_S = 1.0  # how often it looks for a new release while nobody asks
CLOSE_S = 5.0  # a release that is still being loaded then ends with this process
RETRY_S = 30.0  # before a release that did not load is tried again
CRASHES, CRASHES_S = 5, 60.0  # so many in that time end the service: one input may kill the model every time

REPLACED = 5  # so many releases may take over during one request
FIRST_SAMPLES = 8  # of a request with more, whose time tells how many fit into a turn
TURN_MS = 20.0  # of a turn, after which other requests have theirs

ModelInputs = tuple[dict[str, np.ndarray], bool]  # inputs by name, and whether they are a batch
MakeInputs = Callable[[LoadedModel], ModelInputs]


class _Replaced(Exception):
    """Another release took over between two turns of one request."""


class HotReload:
    """Made, started, asked by any thread, closed.

    Attributes:
        trouble: {release, reason} of a newer release that does not load; None: there is none.
        failed: Set when no model can be loaded any more; `error` says why.
        restarts: How often a model that crashed was loaded again.
        queue: Requests take the model in the order in which they came.
        busy_since_s: When the call that runs now began (time.monotonic); None: none runs.
    """

    def __init__(self, request: ServeRequest, timeout_s: float, say: Callable[[str], None]) -> None:
        self.request, self.timeout_s, self.say = request, timeout_s, say
        self.trouble: dict[str, Any] | None = None
        self.error: EdgeloopError | None = None
        self.failed, self.restarts = threading.Event(), 0
        self.busy_since_s: float | None = None
        self.queue = RequestQueue()
        self._turn = threading.Condition()
        self._loaded: LoadedModel | None = None
        self._next: LoadedModel | None = None
        self._retired: list[LoadedModel] = []
        self._wake, self._closing = threading.Event(), False
        self._crashes: collections.deque[float] = collections.deque(maxlen=CRASHES)
        self._crashed_key: tuple[str, int] | None = None
        self._refused: tuple[tuple[str, int], float] | None = None
        # models are started by this one thread, which lives as long as they do (model_process.py)
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Return when the first release is loaded. Raises why it is not, as `load_model`."""
        self._thread.start()
        with self._ready():
            pass

    def predict(
        self, make_inputs: MakeInputs, before_more: Callable[[], None] = lambda: None
    ) -> tuple[LoadedModel, dict[str, np.ndarray], bool, float]:
        """Run the model on what `make_inputs` gives for it. Many samples take several turns, between which other
        requests have theirs; where another release takes over meanwhile, it computes all of them.

        Args:
            before_more: Called before each turn but the first; what it raises ends the request.

        Returns:
            The model that ran, its outputs, whether the inputs were a batch, milliseconds from inputs to outputs.

        Raises:
            DeviceError: The model died of these inputs or took too long, or is not loaded again in time.
            EdgeloopError: What `make_inputs` raises, and TargetError where the runtime refuses the inputs.
        """
        for _ in range(REPLACED):
            with contextlib.suppress(_Replaced):
                return self._predict(make_inputs, before_more)
        raise DeviceError(f"the release was replaced {REPLACED} times during this request", advice="Send it again.")

    def _predict(
        self, make_inputs: MakeInputs, before_more: Callable[[], None]
    ) -> tuple[LoadedModel, dict[str, np.ndarray], bool, float]:
        self.model()  # before the queue: those who wait for one to be loaded wait side by side
        with self.queue, self._ready() as model:
            inputs, batched = make_inputs(model)
            count = model.samples(inputs)
            if count is None or count <= FIRST_SAMPLES:
                outputs, ms = self._run(model, inputs)
                return model, outputs, batched, ms
            outputs, ms = self._run(model, _cut(inputs, 0, FIRST_SAMPLES))
        parts, at, total_ms, size = [outputs], FIRST_SAMPLES, ms, FIRST_SAMPLES
        while at < count:
            before_more()
            size = _next_size(size, ms, model.batch)
            with self.queue, self._ready() as now:
                if now is not model:
                    raise _Replaced
                outputs, ms = self._run(model, _cut(inputs, at, size))
            parts.append(outputs)
            at, total_ms = at + size, total_ms + ms
        return model, {name: np.concatenate([part[name] for part in parts]) for name in outputs}, batched, total_ms

    def _run(self, model: LoadedModel, inputs: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
        """The outputs, and the milliseconds they took. It is this thread's turn."""
        start = time.perf_counter()
        self.busy_since_s = time.monotonic()
        try:
            outputs = model.run(inputs)
        except EdgeloopError as e:
            if not model.process.dead:
                raise
            self._note_crash(model)
            raise DeviceError(e.sentence, advice=e.advice) from e
        finally:
            self.busy_since_s = None
        return outputs, (time.perf_counter() - start) * 1e3

    def model(self) -> LoadedModel:
        """As `current`, and where it is being loaded it is waited for. Raises DeviceError where it does not come."""
        found = self.current()
        if found is None:
            with self._turn:
                self._wait_loaded()
                found = self.current()
        assert found is not None
        return found

    def current(self) -> LoadedModel | None:
        """The model that takes the next request; None while it is being loaded again."""
        return self._next or self._loaded

    def close(self) -> None:
        """End every model. A call that runs is waited for, for CLOSE_S at most."""
        if self._turn.acquire(timeout=CLOSE_S):
            self._turn.release()
        self._closing = True
        self._wake.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join(CLOSE_S)

    @contextlib.contextmanager
    def _ready(self) -> Iterator[LoadedModel]:
        """It is this thread's turn, and a model is loaded."""
        with self._turn:
            self._wait_loaded()
            self._switch()
            assert self._loaded is not None
            if self._key() != self._loaded.key:
                self._wake.set()
            yield self._loaded

    def _wait_loaded(self) -> None:
        """It is locked, and then a model is loaded."""
        there = self._turn.wait_for(lambda: self._loaded or self._next or self.error, 2 * self.timeout_s)
        if self.error:
            raise self.error
        if not there:
            raise DeviceError(f"no release was loaded within {2 * self.timeout_s:g} s", advice="Try again later.")

    def _switch(self) -> None:
        if self._next is None:
            return
        if self._loaded is not None:
            self._retired.append(self._loaded)
        self._loaded, self._next = self._next, None
        self._wake.set()  # to end the old one

    def _note_crash(self, model: LoadedModel) -> None:
        if model.key != self._crashed_key:  # another release than the one that crashed before
            self._crashes.clear()
        self._crashes.append(time.monotonic())
        self._crashed_key = model.key
        self.restarts += 1
        self._retired.append(model)
        self._loaded = None
        self._wake.set()

    def _watch(self) -> None:
        try:
            while not self._closing and self.error is None:
                self._update()
                self._wake.wait(POLL_S)
                self._wake.clear()
        except Exception as e:  # else every request would wait for a model that nobody loads
            self._give_up(EdgeloopError(f"a bug in edgeloop: {type(e).__name__}: {e}", advice="Please report it."))
            raise
        finally:
            for model in (*self._retired, self._next, self._loaded):
                if model is not None:
                    model.close.close()

    def _update(self) -> None:
        """Load what is current now, unless it is loaded or did not load a moment ago."""
        while self._retired:
            self._retired.pop().close.close()
        key, loaded = self._key(), self.current()
        if loaded is not None and key == loaded.key:
            self.trouble = self._refused = None  # the release that did not load was taken back
        if loaded is not None and (key is None or key == loaded.key or self._lately_refused(key)):
            self._switch_if_idle()
            return
        often = len(self._crashes) == CRASHES and time.monotonic() - self._crashes[0] < CRASHES_S
        if loaded is None and often and key == self._crashed_key:
            self._give_up(
                DeviceError(
                    f"the model crashed {CRASHES} times within {CRASHES_S:g} s", advice="Deploy another release."
                )
            )
            return
        try:
            model = load_model(self.request, self.timeout_s)
        except (EdgeloopError, OSError) as e:
            self._note_refusal(e, key, loaded)
            return
        with self._turn:
            if self._next is not None:
                self._retired.append(self._next)
            self._next, self.trouble, self._refused = model, None, None
            self._turn.notify_all()
        release = model.release
        what = f"{release.manifest.name} release {release.manifest.version}, variant {release.variant.id}"
        self.say(f"serving {what} on {release.runtime} {model.process.version}")
        self._switch_if_idle()

    def _switch_if_idle(self) -> None:
        """Let the new model take over at once where no request is at hand; else the next request does it."""
        if self._next is not None and self._turn.acquire(blocking=False):
            self._switch()
            self._turn.release()

    def _note_refusal(self, e: Exception, key: tuple[str, int] | None, loaded: LoadedModel | None) -> None:
        if key != self._key():  # it was replaced while it was read
            self._wake.set()
        elif loaded is None and self._crashed_key is not None and key == self._crashed_key:  # it has loaded before
            self._crashes.append(time.monotonic())
            self._wake.set()
        elif loaded is None:
            unread = DeviceError(f"the current release cannot be read ({e})", advice="Deploy it again.")
            self._give_up(e if isinstance(e, EdgeloopError) else unread)
        elif key is not None:
            self._refused = key, time.monotonic()
            old = loaded.release.manifest.version
            self.trouble = {"release": key[0] or self.request.path, "reason": str(e)}
            self.say(f"{self.trouble['release']} does not load; release {old} keeps answering: {e}")

    def _lately_refused(self, key: tuple[str, int]) -> bool:
        return self._refused is not None and self._refused[0] == key and time.monotonic() - self._refused[1] < RETRY_S

    def _give_up(self, error: EdgeloopError) -> None:
        with self._turn:
            self.error = error
            self._turn.notify_all()
        self.failed.set()

    def _key(self) -> tuple[str, int] | None:
        try:
            return release_key(self.request.path)
        except OSError:  # taken away: the loaded model stays
            return None


def _cut(inputs: dict[str, np.ndarray], start: int, size: int) -> dict[str, np.ndarray]:
    return {name: array[start : start + size] for name, array in inputs.items()}


def _next_size(size: int, ms: float, batch: int | None) -> int:
    """Samples that take about TURN_MS, by what the last `size` took; whole batches of a model with a fixed one."""
    fits = int(size * TURN_MS / max(ms, 1e-3))
    least = batch or 1
    return max(least, fits // least * least)
