"""Candidates in, loaded models out; for those that cannot be loaded, a note, or the error that ends the plan.

A candidate is left out with a note. A device or a runtime that the user named, and that has none left, is an error.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from edgeloop.edge.measure.bench_plan import BenchCandidate, BenchOptions
from edgeloop.edge.measure.prepared_model import PreparedModel
from edgeloop.errors import DeviceError, EdgeloopError, MissingExtra, ParityError, TargetError


class PairLoader:
    """Loads the pairs of a plan, group by group. Their agents end with `stack`, or with `PreparedModel.close`."""

    def __init__(
        self,
        candidates: Sequence[BenchCandidate],
        options: BenchOptions,
        stack: contextlib.ExitStack,
        say: Callable[[str], None],
    ) -> None:
        self.candidates, self.options, self.say, self._stack = candidates, options, say, stack
        self.began_s = time.monotonic()
        self.notes: list[str] = []
        self._left_out: list[tuple[BenchCandidate, EdgeloopError]] = []

    def load(self, group: Sequence[BenchCandidate]) -> list[PreparedModel]:
        """Those of a group that load and compute the right outputs. All are started at once, then loaded one by one.

        Raises:
            DeviceError, TargetError, ParityError, MissingExtra: As `bench`.
        """
        started = []
        for candidate in group:
            own = self._stack.enter_context(contextlib.ExitStack())
            device, target = candidate.device, candidate.target
            starting = candidate.runner.start(device, target.folder, target.entry, self.options.timeout_s)
            running = own.enter_context(starting)
            started.append((candidate, running, own.close))
        up, loaded = [], []
        for candidate, running, close in started:
            with self._trying(candidate, close):
                running.conditions()  # needs no runtime: nothing is loaded, and timed, before all have started
                up.append((candidate, running, close))
        for candidate, running, close in up:
            with self._trying(candidate, close):
                loaded.append(PreparedModel(candidate, running, self.options, self.began_s, close))
        self._check_named()
        return loaded

    @contextlib.contextmanager
    def _trying(self, candidate: BenchCandidate, close: Callable[[], None]) -> Iterator[None]:
        try:
            yield
        except (DeviceError, MissingExtra, ParityError, TargetError) as e:
            close()
            self._leave_out(candidate, e)

    def note(self, line: str) -> None:
        self.notes.append(line)
        self.say(line)

    def _leave_out(self, candidate: BenchCandidate, error: EdgeloopError) -> None:
        if self.options.delegate is not None and not isinstance(error, MissingExtra):
            raise error  # what a delegate refuses must not look like one file less
        self._left_out.append((candidate, error))
        if candidate.runner.name in self.options.runtimes or not isinstance(error, MissingExtra):
            self.note(f"{_not_measured(candidate)}: {error}")

    def _check_named(self) -> None:
        """Refuse a device or runtime that was named and has no pair left, now that all of its candidates were tried."""
        for device in self.options.devices:
            self._need([c for c in self.candidates if c.device == device], device.name)
        for name in self.options.runtimes:
            self._need([c for c in self.candidates if c.runner.name == name], name)
        self._need(self.candidates, "this machine")

    def _need(self, own: Sequence[BenchCandidate], who: str) -> None:
        """Raises where none of these candidates was loaded."""
        failed = [(c, e) for c, e in self._left_out if any(c is candidate for candidate in own)]
        if len(failed) < len(own):
            return
        # that a runtime is not installed says least: of three runtimes, a device has one and that one refuses the file
        candidate, error = next(((c, e) for c, e in failed if not isinstance(e, MissingExtra)), failed[0])
        kind = type(error)
        if kind is MissingExtra and self.options.devices:
            reasons = "; ".join(dict.fromkeys(e.clause for _, e in failed))
            raise DeviceError(
                f"{who} runs none of these files: {reasons}", advice="Install a runtime there, or name another Python."
            ) from error
        if kind is MissingExtra:
            raise MissingExtra(error.sentence, advice=f"Run: {candidate.runner.install}") from error
        raise kind(error.sentence, advice=error.advice, where=_not_measured(candidate)) from error


def _not_measured(candidate: BenchCandidate) -> str:
    return f"{candidate.target.variant} on {candidate.runner.name} was not measured"
