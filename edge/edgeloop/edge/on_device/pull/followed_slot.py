"""A slot that follows a source: what it has of an offered version, and what it remembers (pull_record.py).

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from edgeloop.atomic import make_folder
from edgeloop.edge.on_device.pull.pull_options import PullOptions
from edgeloop.edge.on_device.pull.pull_record import FailedRelease, PollResult, PullRecord, read_record, write_record
from edgeloop.edge.on_device.releases.staged_bundle import is_whole
from edgeloop.edge.on_device.releases.store import Release, Slot, read_state
from edgeloop.errors import EdgeloopError
from edgeloop.registry.versions.version_index import IndexedVersion

REST_S = 60.0  # between two writes of what has not changed but for the time: a card wears out


class FollowedSlot:
    """The slot of the followed model's name.

    Attributes:
        record: What is remembered; the disk may lag behind it.
        whole: Whether the current release is what was installed; looked at by `look`.
    """

    def __init__(self, options: PullOptions, home: str, say: Callable[[str], None]) -> None:
        self.options, self.say = options, say
        self.slot = Slot(home, options.address.name)
        self.record, self.whole = self._known(), True
        self._written_s = -REST_S

    @property
    def current(self) -> Release | None:
        """The release that is committed. Raises IntegrityError: the slot's state is damaged."""
        return read_state(self.slot).current

    def look(self) -> bool:
        """Whether there is a release that can be run; one that the disk has damaged is installed again."""
        self.whole = False
        with contextlib.suppress(EdgeloopError, OSError):  # a poll tells what is wrong there
            current = self.current
            self.whole = current is not None and is_whole(self.slot, current)
        return self.whole

    def without_installing(self, version: IndexedVersion) -> tuple[PollResult, str] | None:
        """What there is to say of a version that is here already or is not taken; None: it must be installed."""
        state, name = read_state(self.slot), f"release {version.version}"
        if state.current is not None and state.current.manifest_sha256 == version.manifest_sha256:
            if self.whole and self._runs_as_asked(state.current):
                return PollResult.NOTHING_NEW, f"{name} is the newest there, and installed"
        elif version.version <= state.floor:
            found = f"{name} is offered, which is not above release {state.floor}, which this device has committed"
            return PollResult.REFUSED, found
        failed = self.record.failed.get(version.manifest_sha256)
        if failed is None or not failed.final:
            return None
        reason = failed.reason or f"its trial began {failed.times} times, and never ended"
        return PollResult.REFUSED, f"{name} failed on this device, and is not tried again: {reason}"

    def note_try(self, version: IndexedVersion) -> FailedRelease | None:
        """Before a trial, on the disk: a model that takes the whole device down must not do so for ever. What was
        noted of it before."""
        before = self.record.failed.get(version.manifest_sha256)
        self.note_failed(version, FailedRelease(version.version, before.times + 1 if before else 1))
        return before

    def note_failed(self, version: IndexedVersion, failed: FailedRelease | None) -> None:
        """None: nothing is known against it."""
        self._write(self.record.with_failed(version.manifest_sha256, failed))

    def note_installed(self, version: IndexedVersion) -> None:
        self.whole = True
        known = self.record.with_failed(version.manifest_sha256, None)
        self._write(replace(known, installed=version.manifest_sha256))

    def note_poll(self, result: PollResult, reason: str) -> bool:
        """Whether it ended otherwise than the poll before, so that someone may want to know."""
        before = self.record
        failures = before.failures + 1 if result is PollResult.FAILED else 0
        record = replace(before, polled_s=time.time(), result=result.value, reason=reason, failures=failures)
        known = (result.value, reason) == (before.result, before.reason)
        if known and time.monotonic() - self._written_s < REST_S:
            self.record = record
        else:
            self._write(record)
        installed_before = result is PollResult.NOTHING_NEW and before.result == PollResult.INSTALLED.value
        return not (known or installed_before)

    def _runs_as_asked(self, current: Release) -> bool:
        asked = self.options.constraints
        fits = asked.variant in (None, current.variant) and asked.runtime in (None, current.runtime)
        return fits and self.options.threads in (0, current.threads)

    def _known(self) -> PullRecord:
        """What is known from before, as far as it is of this source and of these demands."""
        text, demands = self.options.address.text, self.options.demands
        record = read_record(self.slot) or PullRecord()
        if record.source != text:
            record = PullRecord(installed=record.installed, failed=record.failed, demands=record.demands)
        failed = record.failed if record.demands == demands else {}
        return replace(record, source=text, demands=demands, failed=failed, poll_s=self.options.poll_s, failures=0)

    def _write(self, record: PullRecord) -> None:
        self.record, self._written_s = record, time.monotonic()
        try:
            make_folder(self.slot.path)
            write_record(self.slot, record)
        except OSError as e:  # a full or read-only disk: what runs goes on, and `devices` shows an older poll
            self.say(f"cannot write what was polled below {self.slot.path}: {e.strerror}")
