"""Questions in, answers of the release that is current out; a new release takes over between two questions.

It is loaded beside the old one, in an agent of its own, and takes over when it is ready: no question waits for it, none
is lost. Where it does not load, the old one goes on and `trouble` says why. A model that crashes fails the question
that killed it and is loaded again; the next questions wait for that. Python 3.9 syntax.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeloop.edge.on_device.serving.current_release import ServeRequest, key
from edgeloop.edge.on_device.serving.loaded_model import LoadedModel, load
from edgeloop.errors import DeviceError, EdgeloopError

LOOK_S = 1.0  # how often an idle follower looks for a new release
CLOSE_S = 5.0  # a release that is still being loaded then ends with this process
RETRY_S = 30.0  # before a release that did not load is tried again
CRASHES, CRASHES_S = 5, 60.0  # as many in that time end it: the same question may kill it for ever

Made = tuple[dict[str, np.ndarray], bool]  # inputs, and whether they are a batch


class HotReload:
    """Made, started, asked by any thread, closed. `failed` is set when it can answer no more; `error` says why."""

    def __init__(self, wanted: ServeRequest, timeout_s: float, say: Callable[[str], None]) -> None:
        self.wanted, self.timeout_s, self.say = wanted, timeout_s, say
        self.trouble: dict[str, Any] | None = None
        self.error: EdgeloopError | None = None
        self.failed, self.restarts = threading.Event(), 0
        self._turn = threading.Condition()
        self._loaded: LoadedModel | None = None
        self._next: LoadedModel | None = None
        self._retired: list[LoadedModel] = []
        self._wake, self._closing = threading.Event(), False
        self._crashes: collections.deque[float] = collections.deque(maxlen=CRASHES)
        self._killed: tuple[str, int] | None = None
        self._refused: tuple[tuple[str, int], float] | None = None
        # agents are started by this one thread, which lives as long as they do (resident.py)
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Returns when the first release is loaded; raises why it is not, as `choose` and `LoadedModel.run` do."""
        self._thread.start()
        with self._ready():
            pass

    def ask(self, make: Callable[[LoadedModel], Made]) -> tuple[LoadedModel, dict[str, np.ndarray], bool, float]:
        """`make` gives the inputs for the release that answers, and whether they are a batch.

        Returns:
            That release, its outputs, what `make` said of a batch, milliseconds from inputs to outputs.

        Raises:
            DeviceError: The model died of this question or took too long, or is not back in time after another did.
            EdgeloopError: What `make` raises, and TargetError where the runtime refuses the inputs.
        """
        with self._ready() as loaded:
            inputs, batched = make(loaded)
            start = time.perf_counter()
            try:
                outputs = loaded.run(inputs)
            except EdgeloopError as e:
                if not loaded.model.dead:
                    raise
                self._crashed(loaded)
                raise DeviceError(str(e)) from e
            return loaded, outputs, batched, (time.perf_counter() - start) * 1e3

    def peek(self) -> LoadedModel | None:
        """What answers now; None while it is being loaded again."""
        return self._next or self._loaded

    def close(self) -> None:
        """Ends every agent; what is being answered is waited for."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        self._wake.set()
        self._thread.join(CLOSE_S)

    @contextlib.contextmanager
    def _ready(self) -> Iterator[LoadedModel]:
        """It is this thread's turn, and a release is loaded."""
        with self._turn:
            there = self._turn.wait_for(lambda: self._loaded or self._next or self.error, 2 * self.timeout_s)
            if self.error:
                raise self.error
            if not there:
                raise DeviceError(f"no release was loaded within {2 * self.timeout_s:g} s. Ask again later.")
            self._take_over()
            assert self._loaded is not None
            if self._key() != self._loaded.key:
                self._wake.set()
            yield self._loaded

    def _take_over(self) -> None:
        if self._next is None:
            return
        if self._loaded is not None:
            self._retired.append(self._loaded)
        self._loaded, self._next = self._next, None
        self._wake.set()  # to end the old one

    def _crashed(self, loaded: LoadedModel) -> None:
        if loaded.key != self._killed:  # another release than the one that died before
            self._crashes.clear()
        self._crashes.append(time.monotonic())
        self._killed = loaded.key
        self.restarts += 1
        self._retired.append(loaded)
        self._loaded = None
        self._wake.set()

    def _watch(self) -> None:
        try:
            while not self._closing and self.error is None:
                self._follow()
                self._wake.wait(LOOK_S)
                self._wake.clear()
        except Exception as e:  # else every asker would wait for a release that nobody loads
            self._give_up(EdgeloopError(f"a bug in edgeloop: {type(e).__name__}: {e}"))
            raise
        finally:
            for one in (*self._retired, self._next, self._loaded):
                if one is not None:
                    one.close.close()

    def _follow(self) -> None:
        while self._retired:
            self._retired.pop().close.close()
        here, answering = self._key(), self.peek()
        if answering is not None and here == answering.key:
            self.trouble = self._refused = None  # what did not load was taken back
        if answering is not None and (here is None or here == answering.key or self._lately_refused(here)):
            self._settle()
            return
        often = len(self._crashes) == CRASHES and time.monotonic() - self._crashes[0] < CRASHES_S
        if answering is None and often and here == self._killed:
            self._give_up(
                DeviceError(f"the model died {CRASHES} times within {CRASHES_S:g} s. Deploy another release.")
            )
            return
        try:
            loaded = load(self.wanted, self.timeout_s)
        except (EdgeloopError, OSError) as e:
            self._did_not_load(e, here, answering)
            return
        with self._turn:
            if self._next is not None:
                self._retired.append(self._next)
            self._next, self.trouble, self._refused = loaded, None, None
            self._turn.notify_all()
        found = loaded.chosen
        what = f"{found.manifest.name} {found.manifest.version}, {found.variant.id} on {found.runtime}"
        self.say(f"{what} {loaded.model.version}, answers from now on")
        self._settle()

    def _settle(self) -> None:
        """Let the new release take over at once where nobody asks; askers do it themselves at their turn."""
        if self._next is not None and self._turn.acquire(blocking=False):
            self._take_over()
            self._turn.release()

    def _did_not_load(self, e: Exception, here: tuple[str, int] | None, answering: LoadedModel | None) -> None:
        if here != self._key():  # it was replaced while we read it
            self._wake.set()
        elif answering is None and self._killed is not None and here == self._killed:  # it has loaded before
            self._crashes.append(time.monotonic())
            self._wake.set()
        elif answering is None:
            self._give_up(e if isinstance(e, EdgeloopError) else DeviceError(f"no release to answer with ({e})."))
        elif here is not None:
            self._refused = here, time.monotonic()
            old = answering.chosen.manifest.version
            self.trouble = {"release": here[0] or self.wanted.path, "reason": str(e)}
            self.say(f"{self.trouble['release']} does not load, release {old} goes on: {e}")

    def _lately_refused(self, here: tuple[str, int]) -> bool:
        return self._refused is not None and self._refused[0] == here and time.monotonic() - self._refused[1] < RETRY_S

    def _give_up(self, error: EdgeloopError) -> None:
        with self._turn:
            self.error = error
            self._turn.notify_all()
        self.failed.set()

    def _key(self) -> tuple[str, int] | None:
        try:
            return key(self.wanted.path)
        except OSError:  # taken away: what is loaded goes on
            return None
