"""A source is polled, and what it offers is installed as a deploy installs it: one device, one slot, one source.

The agent that keeps releases does the work, in a process of its own: the same requests in the same order as from a host
(release_client.py). Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager

from edgeloop.atomic import make_folder
from edgeloop.disk_errors import write_error
from edgeloop.edge.on_device.pull.followed_slot import FollowedSlot
from edgeloop.edge.on_device.pull.installation import stage, try_staged
from edgeloop.edge.on_device.pull.offered_release import check_enrolled, choose_variant, offered_release
from edgeloop.edge.on_device.pull.own_release_agent import own_release_agent
from edgeloop.edge.on_device.pull.poll_schedule import Random, delay_s, first_delay_s
from edgeloop.edge.on_device.pull.pull_options import STEP_S, PullOptions
from edgeloop.edge.on_device.pull.pull_record import FailedRelease, PollResult, PullRecord
from edgeloop.edge.on_device.releases.release_client import ReleaseClient
from edgeloop.errors import (
    BudgetError,
    DataError,
    DeviceError,
    EdgeloopError,
    IntegrityError,
    ModelError,
    ParityError,
    TargetError,
    WriteError,
)
from edgeloop.registry.versions.version_index import IndexedVersion, VersionIndex, parse_index

CLOSE_S = 5.0
# of a trial: the release's own fault, as far as one can tell
WRONG = (ParityError, BudgetError, TargetError, DataError, ModelError)

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
        self.followed, self.source = FollowedSlot(options, home, say), options.source()
        self._seen: Hashable = None
        self._offered: VersionIndex | None = None
        self._agent: ReleaseClient | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def record(self) -> PullRecord:
        """What is remembered of the last poll and of earlier ones."""
        return self.followed.record

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
            result, reason = PollResult.FAILED, str(write_error(e.filename or self.followed.slot.path, e))
        except Exception as e:  # the next poll may do better; a thread that ends would never poll again
            result, reason = PollResult.FAILED, f"a bug in edgeloop: {type(e).__name__}: {e}"
        if self.followed.note_poll(result, reason) and not self._closing.is_set():
            self.say(f"{self.options.address.text}: {reason}")
        return result

    def _run(self) -> None:
        delay = first_delay_s(self.options.poll_s, self.followed.look(), self.random)
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
        name = self.followed.slot.name
        if self._offered.name != name:
            raise IntegrityError(
                f"the registry's folder holds the model {self._offered.name!r}, and --follow names {name!r}",
                advice="Follow the folder of the model's own name.",
            )
        version = self._offered.find(self.options.address.alias)
        return self.followed.without_installing(version) or self._install(version)

    def _install(self, version: IndexedVersion) -> tuple[PollResult, str]:
        make_folder(self.followed.slot.path)
        with contextlib.ExitStack() as stack:
            offered = stack.enter_context(offered_release(self.source, self.followed.slot, version))
            held = self.followed.current
            try:
                fit = choose_variant(offered.bundle, held, self.options.constraints)
            except BudgetError as e:
                return self._refuse(version, e)
            client = stack.enter_context(self.start_agent(STEP_S))
            self._agent = client
            stack.callback(self._forget_agent)
            self._check_open()  # `close` may have come before there was an agent to end
            threads = self.options.threads or (held.threads if held else 1)
            if stage(client, self.source, offered, fit, threads):
                self._check_open()
                before = self.followed.note_try(version)
                try:
                    failure = try_staged(client, offered, fit, threads, self.options.probation)
                    if failure is not None:
                        raise failure
                except EdgeloopError as e:
                    if isinstance(e, WriteError) or self._closing.is_set():  # it was no try of the release
                        self.followed.note_failed(version, before)
                    if not isinstance(e, WRONG) or self._closing.is_set():
                        raise
                    return self._refuse(version, e)
        self.followed.note_installed(version)
        return PollResult.INSTALLED, f"release {version.version} is installed, variant {fit.variant.id}"

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise DeviceError("the service is ending", advice="The release is installed when it runs again.")

    def _refuse(self, version: IndexedVersion, error: EdgeloopError) -> tuple[PollResult, str]:
        self.followed.note_failed(version, FailedRelease(version.version, reason=error.clause))
        said = self.followed.without_installing(version)
        assert said is not None
        return said

    def _forget_agent(self) -> None:
        self._agent = None
