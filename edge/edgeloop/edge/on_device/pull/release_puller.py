"""A source is polled, and what it offers is installed as a deploy installs it: one device, one slot, one source.

The agent that keeps releases does the work, in a process of its own: the same requests in the same order as from a host
(release_client.py). Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import replace

from edgeloop.atomic import make_folder
from edgeloop.disk_errors import write_error
from edgeloop.edge.on_device.pull.installation import stage, try_staged
from edgeloop.edge.on_device.pull.offered_release import check_enrolled, choose_variant, offered_release
from edgeloop.edge.on_device.pull.own_release_agent import own_release_agent
from edgeloop.edge.on_device.pull.poll_schedule import Random, delay_s, first_delay_s
from edgeloop.edge.on_device.pull.pull_options import STEP_S, PullOptions
from edgeloop.edge.on_device.pull.pull_record import (
    FailedRelease,
    PollResult,
    PullRecord,
    read_record,
    write_record,
)
from edgeloop.edge.on_device.releases.release_client import ReleaseClient
from edgeloop.edge.on_device.releases.staged_bundle import is_whole
from edgeloop.edge.on_device.releases.store import Release, Slot, read_state
from edgeloop.errors import (
    BudgetError,
    DataError,
    EdgeloopError,
    IntegrityError,
    ModelError,
    ParityError,
    TargetError,
    WriteError,
)
from edgeloop.registry.versions.version_index import IndexedVersion, VersionIndex, parse_index

CLOSE_S = 5.0
WRONG = (
    ParityError,
    BudgetError,
    TargetError,
    DataError,
    ModelError,
)  # the release's own fault, as far as one can tell

StartAgent = Callable[[float], AbstractContextManager[ReleaseClient]]


class ReleasePuller:
    """Made, started, closed; or `poll` called by hand.

    Raises:
        IntegrityError: No signers are enrolled on the device.
        DataError: The root certificate cannot be read.
    """

    def __init__(
        self,
        options: PullOptions,
        home: str,
        say: Callable[[str], None],
        start_agent: StartAgent = own_release_agent,
        random: Random = random.random,
    ) -> None:
        check_enrolled(home)
        self.options, self.say, self.start_agent, self.random = options, say, start_agent, random
        self.slot, self.source = Slot(home, options.address.name), options.source()
        self._seen: Hashable = None
        self._offered: VersionIndex | None = None
        self._agent: ReleaseClient | None = None
        self._before: FailedRelease | None = None
        self._whole = True
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.record = self._first_record()

    def start(self) -> None:
        """Poll in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """End what runs; a release whose trial that cuts short is tried again."""
        self._closing.set()
        agent = self._agent
        if agent is not None:
            agent.agent.child.terminate()
        if self._thread.ident is not None:  # it was started
            self._thread.join(CLOSE_S)

    def poll(self) -> PollResult:
        """Ask once, and install what is new. What fails is in the record, and on the next poll."""
        try:
            result, reason = self._poll()
        except EdgeloopError as e:
            result, reason = PollResult.FAILED, str(e)
        except OSError as e:
            result, reason = PollResult.FAILED, str(write_error(e.filename or self.slot.path, e))
        except Exception as e:  # the next poll may do better; a thread that ends would never poll again
            result, reason = PollResult.FAILED, f"a bug in edgeloop: {type(e).__name__}: {e}"
        failures = self.record.failures + 1 if result is PollResult.FAILED else 0
        known = (result.value, reason) == (self.record.result, self.record.reason)
        as_said = result is PollResult.NOTHING_NEW and self.record.result == PollResult.INSTALLED.value
        if not (known or as_said or self._closing.is_set()):
            self.say(f"{self.options.address.text}: {reason}")
        self._write(replace(self.record, polled_s=time.time(), result=result.value, reason=reason, failures=failures))
        return result

    def _run(self) -> None:
        self._whole = self._is_whole()
        delay = first_delay_s(self.options.poll_s, self._whole, self.random)
        while not self._closing.wait(delay):
            self.poll()
            delay = delay_s(self.options.poll_s, self.record.failures, self.source.retry_after_s, self.random)

    def _poll(self) -> tuple[PollResult, str]:
        new = self.source.index(self._seen)
        if new is not None:
            self._seen, self._offered = None, None
            self._offered = parse_index(new[0])
            self._seen = new[1]
        assert self._offered is not None  # whoever says that nothing changed was told since when
        if self._offered.name != self.slot.name:
            raise IntegrityError(
                f"the index there is of {self._offered.name!r}, and the slot of {self.slot.name!r}",
                advice="Follow the folder of the model's own name.",
            )
        version = self._offered.find(self.options.address.alias)
        return self._without_installing(version) or self._install(version)

    def _without_installing(self, version: IndexedVersion) -> tuple[PollResult, str] | None:
        """What there is to say of a version that is here already or is not taken; None: it must be installed."""
        state, name = read_state(self.slot), f"release {version.version}"
        if state.current is not None and state.current.manifest_sha256 == version.manifest_sha256:
            if self._whole and self._runs_as_asked(state.current):
                return PollResult.NOTHING_NEW, f"{name} is the newest there, and installed"
        elif version.version <= state.floor:
            found = f"{name} is offered, which is not above release {state.floor}, which this device has committed"
            return PollResult.REFUSED, found
        failed = self.record.failed.get(version.manifest_sha256)
        if failed is None or not failed.final:
            return None
        reason = failed.reason or f"its trial began {failed.times} times, and never ended"
        return PollResult.REFUSED, f"{name} failed on this device, and is not tried again: {reason}"

    def _is_whole(self) -> bool:
        """Whether there is a release that can be run; one that the disk has damaged is fetched again."""
        with contextlib.suppress(EdgeloopError, OSError):  # a poll tells what is wrong there
            current = read_state(self.slot).current
            return current is not None and is_whole(self.slot, current)
        return False

    def _runs_as_asked(self, current: Release) -> bool:
        asked = self.options.constraints
        fits = asked.variant in (None, current.variant) and asked.runtime in (None, current.runtime)
        return fits and self.options.threads in (0, current.threads)

    def _install(self, version: IndexedVersion) -> tuple[PollResult, str]:
        make_folder(self.slot.path)
        with contextlib.ExitStack() as stack:
            offered = stack.enter_context(offered_release(self.source, self.slot, version))
            held = read_state(self.slot).current
            try:
                fit = choose_variant(offered.bundle, held, self.options.constraints)
            except BudgetError as e:
                return self._refuse(version, e)
            client = stack.enter_context(self.start_agent(STEP_S))
            self._agent = client
            stack.callback(self._forget_agent)
            threads = self.options.threads or (held.threads if held else 1)
            if stage(client, self.source, offered, fit, threads):
                self._note_try(version)
                try:
                    failure = try_staged(client, offered, fit, threads, self.options.probation)
                    if failure is not None:
                        raise failure
                except EdgeloopError as e:
                    if isinstance(e, WriteError) or self._closing.is_set():  # it was no try of the release
                        self._write(self.record.with_failed(version.manifest_sha256, self._before))
                    if not isinstance(e, WRONG) or self._closing.is_set():
                        raise
                    return self._refuse(version, e)
        done = replace(self.record.with_failed(version.manifest_sha256, None), installed=version.manifest_sha256)
        self._write(done)
        self._whole = True
        return PollResult.INSTALLED, f"release {version.version} is installed, variant {fit.variant.id}"

    def _note_try(self, version: IndexedVersion) -> None:
        """On the disk before the trial: a model that takes the whole device down must not do so for ever."""
        self._before = self.record.failed.get(version.manifest_sha256)
        times = self._before.times + 1 if self._before else 1
        self._write(self.record.with_failed(version.manifest_sha256, FailedRelease(version.version, times)))

    def _refuse(self, version: IndexedVersion, error: EdgeloopError) -> tuple[PollResult, str]:
        failed = FailedRelease(version.version, reason=error.clause)
        self._write(self.record.with_failed(version.manifest_sha256, failed))
        said = self._without_installing(version)
        assert said is not None
        return said

    def _forget_agent(self) -> None:
        self._agent = None

    def _first_record(self) -> PullRecord:
        """What is known from before, as far as it is of this source and of these demands."""
        text, demands = self.options.address.text, self.options.demands
        record = read_record(self.slot) or PullRecord()
        if record.source != text:
            record = PullRecord(installed=record.installed, failed=record.failed, demands=record.demands)
        failed = record.failed if record.demands == demands else {}
        return replace(record, source=text, demands=demands, failed=failed, poll_s=self.options.poll_s, failures=0)

    def _write(self, record: PullRecord) -> None:
        self.record = record
        try:
            make_folder(self.slot.path)
            write_record(self.slot, record)
        except OSError as e:  # a full or read-only disk: what runs goes on, and `devices` shows an older poll
            self.say(f"cannot write what was polled below {self.slot.path}: {e.strerror}")
