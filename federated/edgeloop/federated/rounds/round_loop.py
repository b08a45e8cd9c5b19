"""The rounds of a run: Flower's strategy between our Grid and our journal.

`Strategy.start` of Flower always begins at round 1 and takes what comes. This loop calls the same two hooks of the
strategy, `configure_train` and `aggregate_train`, for the rounds that are still to do, each repeated until it has its
quorum, and commits each round before the next one begins.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from edgeloop.atomic import write_file
from edgeloop.errors import DeviceError
from edgeloop.federated.device.compression.codec import Codec
from edgeloop.federated.device.compression.upload import BASE, COMPRESSION, RUN, SHARE
from edgeloop.federated.rounds.aggregation.collect import AllReplies, Collector, StreamedMean, as_float32
from edgeloop.federated.rounds.buffered.options import BufferedOptions
from edgeloop.federated.rounds.collect_round import POLL_S, collect_round
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.guard.guarded_grid import GuardedGrid
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.guard.update import Update
from edgeloop.federated.rounds.journal.contents import Contents
from edgeloop.federated.rounds.journal.continued import Continued
from edgeloop.federated.rounds.journal.journal import Journal
from edgeloop.federated.rounds.journal.options import JournalOptions
from edgeloop.federated.rounds.kept_models import KeptModels
from edgeloop.federated.rounds.negotiation.negotiated_grid import NegotiatedGrid
from edgeloop.federated.rounds.negotiation.nodes_file import NODES, nodes_bytes
from edgeloop.federated.rounds.negotiation.selection_options import SelectionOptions
from edgeloop.federated.rounds.plan import RoundPlan, check_memory, needed_replies, plan_round
from edgeloop.federated.rounds.privacy.options import PrivacyMode, PrivacyOptions, Sampling
from edgeloop.federated.rounds.privacy.private_rounds import Chosen, PrivateRounds
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import (
    BUDGET_SPENT,
    FINISHED,
    ROUNDS,
    RUNNING,
    ClientRecord,
    RefusedReply,
    RoundRecord,
    is_due,
    models_folder,
    rounds_bytes,
)
from edgeloop.federated.rounds.scaffold import Scaffold, StepCount
from edgeloop.federated.rounds.statistics.noisy_summary import NoisySummary
from edgeloop.federated.rounds.statistics.options import StatisticsOptions
from edgeloop.federated.rounds.statistics.round_statistics import RoundStatistics
from edgeloop.federated.rounds.statistics.summary import Summary
from edgeloop.federated.rounds.statistics.told import Labels
from edgeloop.federated.rounds.strategies import (
    STRATEGIES,
    StrategyName,
    StrategyOptions,
    make_strategy,
    moments_of,
    restore_moments,
)


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What the server of a run needs to know.

    Attributes:
        devices: How many devices the run is for; the fraction of a round is one of these.
        train: What devices are told in every round: the model, epochs and so on.
        learning_rate: In round 1; times `learning_rate_decay` after each round.
        query: Devices are asked what they are though nothing depends on it: nodes.json shows it.
        max_memory_bytes: For strategies that need all replies of a round at once.
        buffered: Rounds are buffered ones; None: synchronous.
        kept_updates, kept_every: So many device models stay as files, of every so many rounds and of the last one.
        trained: Names of the weights that steps move, which scaffold and private rounds have to know; empty: all.
        batch: Samples of a step of a device, which scaffold has to know.
        statistics: What devices are asked to tell of their data; `labels` is what the labels of the model are.
        journal: What the journal keeps of each update.
        numbered: No two devices have the same label; those of `[network]` may.
    """

    rounds: int
    devices: int
    seed: int = 0
    learning_rate: float = 0.05
    learning_rate_decay: float = 1.0
    train: Mapping[str, Any] = field(default_factory=dict)
    quorum: QuorumOptions = field(default_factory=QuorumOptions)
    guard: GuardOptions = field(default_factory=GuardOptions)
    strategy: StrategyOptions = field(default_factory=StrategyOptions)
    compression: CompressionOptions = field(default_factory=CompressionOptions)
    privacy: PrivacyOptions = field(default_factory=PrivacyOptions)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    query: bool = False
    buffered: BufferedOptions | None = None
    max_memory_bytes: int = 2_000_000_000
    kept_updates: int = 0
    kept_every: int = 1
    trained: tuple[str, ...] = ()
    batch: int = 0
    statistics: StatisticsOptions = field(default_factory=StatisticsOptions)
    labels: Labels = field(default_factory=Labels)
    journal: JournalOptions = field(default_factory=JournalOptions)
    numbered: bool = True


class RoundLoop:
    """One server of a run. `out` is the run's folder, `initial` the weights before round 1."""

    def __init__(self, grid: Grid, options: LoopOptions, out: Path, initial: Mapping[str, np.ndarray]) -> None:
        self.options, self.out = options, out
        self.journal = Journal(out / "journal")
        self.contents = Contents(out / "journal", options.journal.limit_bytes)
        self.grid = self._guarded(grid)
        target, needed = needed_replies(options.devices, options.quorum)
        self.strategy = make_strategy(options.strategy, needed)  # no more may come, and some of them be hostile
        if not STRATEGIES[options.strategy.name].streams:
            shapes = [array.shape for array in initial.values()]
            check_memory(shapes, target, options.max_memory_bytes, options.strategy.name.value)
        resumed = self.journal.resumed()
        self.records = list(resumed.records)
        self.weights = {name: np.asarray(array, np.float32) for name, array in (resumed.weights or initial).items()}
        restore_moments(self.strategy, options.strategy, dict(resumed.moments or {}))
        self.scaffold = self._scaffold(resumed.moments or {})
        self.grid.faults = Counter(resumed.faults or {})
        self.grid.seen = dict(resumed.seen or {})
        self._gathered = False
        self._current = (len(self.records) + 1, 1)  # round and attempt
        self.privacy = self._private(target)

    def run(self) -> None:
        """All rounds that are still to do, or as many as the privacy budget allows.

        Raises:
            DeviceError: A round did not get its quorum in all its attempts; committed rounds stay.
            WriteError: The disk refuses.
        """
        self._report()
        for number in range(len(self.records) + 1, self.options.rounds + 1):
            record = self._round(number) if self.privacy is None or self.privacy.allows() else None
            if record is None:
                self._end_unaffordable()
                return
            moments = moments_of(self.strategy, self.options.strategy)
            if self.scaffold is not None:
                moments.update(self.scaffold.moments())
            self.journal.commit(record, self.weights, moments, self.grid.faults)
            self.records.append(record)
            self._report()

    def _scaffold(self, moments: Mapping[str, np.ndarray]) -> Scaffold | None:
        options = self.options
        if options.strategy.name is not StrategyName.SCAFFOLD:
            return None
        shapes = {name: self.weights[name].shape for name in options.trained or self.weights}
        return Scaffold(shapes, options.devices, StepCount(options.train.get("epochs", 1), options.batch), moments)

    def _rate(self, number: int) -> float:
        return self.options.learning_rate * self.options.learning_rate_decay ** (number - 1)

    def _guarded(self, grid: Grid) -> GuardedGrid:
        options = self.options
        return GuardedGrid(self._negotiated(grid), options.guard, options.compression)

    def _negotiated(self, grid: Grid) -> NegotiatedGrid:
        options = self.options
        self.negotiated = NegotiatedGrid(grid, options.compression, options.selection, query=options.query)
        return self.negotiated

    def _private(self, target: int) -> PrivateRounds | None:
        if self.options.privacy.mode is PrivacyMode.NONE:
            return None
        last = self.records[-1].privacy if self.records else None
        return PrivateRounds(
            self.options.privacy,
            self.options.devices,
            target,
            lambda event: self.journal.add_release(*self._current, event),
            self.journal.releases,
            last,
            self.options.trained,
            self.options.statistics.noise_multiplier,
        )

    def _end_unaffordable(self) -> None:
        """Well, if there is a round to show."""
        if not self.records:
            raise DeviceError(
                "round 1 has no quorum, and max-epsilon allows no other attempt: devices that were asked may have "
                "answered",
                advice="Look at the devices, then begin a new run with a larger max-epsilon.",
            )
        self._report(BUDGET_SPENT)

    def _report(self, state: str | None = None) -> None:
        done = len(self.records) >= self.options.rounds
        write_file(self.out / ROUNDS, rounds_bytes(self.records, state or (FINISHED if done else RUNNING)))
        if self.negotiated.asks:
            facts = {node: known.facts for node, known in self.negotiated.nodes.items()}
            write_file(self.out / NODES, nodes_bytes(facts))

    def _round(self, number: int) -> RoundRecord | None:
        """None: the privacy budget does not allow it."""
        came, plan = list[Update](), None
        voids = self.journal.void_attempts(number)  # who is asked follows from their number: not the same again
        first = self.journal.next_attempt(number)  # not that of a server that was killed: its updates stay void
        for tries in range(self.options.quorum.attempts):
            attempt, draw, earlier = first + tries, voids + tries + 1, plan
            self._current, plan = (number, attempt), self._plan(number, draw)
            if self.privacy is not None and not self.privacy.allows(Chosen(plan.target, plan.connected)):
                if earlier is None:
                    return None
                raise DeviceError(
                    f"{self._no_quorum(number, tries, earlier, came)}; max-epsilon allows no other attempt",
                    advice=self._advice_spent(),
                )
            self.grid.open_round(number, self.weights, plan.chosen)
            kept = self._continued(number) if tries == 0 else None
            if kept is not None:  # devices that have answered were asked, where they are away now too
                attempt, plan = kept.attempt, replace(plan, chosen=tuple(sorted({*plan.chosen, *kept.nodes})))
            self._current = (number, attempt)
            self.contents.discard(number, attempt)
            summary = self._summary()
            collector = self._collector(number, attempt, summary)
            if len(plan.chosen) >= plan.needed:
                came = self._attempt(number, draw, plan, collector, kept)
                if len(came) >= plan.needed:
                    self._step(number, collector.replies())
                    if self.scaffold is not None:
                        self.scaffold.step()
                    return self._record(number, attempt, plan, came, summary.record())
            self.journal.add_void(number, attempt)
            self.contents.discard(number)
        assert plan is not None
        raise DeviceError(self._no_quorum(number, tries + 1, plan, came), advice=self._advice())

    def _continued(self, number: int) -> Continued | None:
        return Continued.find(number, self.journal, self.contents, self.grid, numbered=self.options.numbered)

    def _attempt(
        self, number: int, draw: int, plan: RoundPlan, collector: Collector, kept: Continued | None
    ) -> list[Update]:
        if self.privacy is not None:
            self.privacy.before_asking()
        counted = [] if kept is None else kept.count(self.grid, collector)
        asked = set(plan.chosen) - (set() if kept is None else kept.nodes)
        messages: list[Message] = []
        if asked and len(counted) < plan.target:
            self.grid.chosen = tuple(sorted(asked))
            messages = self._messages(number, self._packed(), attempt=draw)
        elif hasattr(self.strategy, "current_arrays"):  # fed-adam and fed-yogi set it when they send
            self.strategy.current_arrays = dict(self.weights)
        return collect_round(self.grid, messages, plan, collector, self.options.quorum.deadline_s, counted)

    def _packed(self) -> ArrayRecord:
        """The weights as messages hold them: a copy."""
        return ArrayRecord({name: Array(array) for name, array in self.weights.items()})

    def _messages(self, number: int, arrays: ArrayRecord, **more: int) -> list[Message]:
        """What the grid's chosen nodes are sent in a round."""
        options, private = self.options, self.privacy.for_devices() if self.privacy else {}
        known = {**more, "lr": self._rate(number), "seed": options.seed}
        told = options.statistics.for_devices()
        config = ConfigRecord({**options.train, **private, **known, **told, **self._compression()})
        messages = self.strategy.configure_train(number, arrays, config, self.grid)
        return list(messages if self.scaffold is None else self.scaffold.add_to(messages, self.records))

    def _compression(self) -> dict[str, Any]:
        """What devices are told of how to answer."""
        options = self.options.compression
        base = {BASE: self.grid.base.sha256}
        if options.upload is Codec.NONE:
            return base
        known = {COMPRESSION: options.upload.value, **base, RUN: self.journal.run_id()}
        return {**known, SHARE: options.sent_share} if options.upload.sparse else known

    def _step(self, number: int, replies: list[Message]) -> None:
        arrays, _ = self.strategy.aggregate_train(number, replies)
        if arrays is None:
            raise DeviceError(f"the strategy made nothing of the replies of round {number}", advice="Choose another.")
        self.weights = as_float32(arrays)
        if not all(np.isfinite(array).all() for array in self.weights.values()):
            raise DeviceError(
                f"the weights after round {number} hold NaN or infinity",
                advice="Lower the learning rates; the rounds before are kept.",
            )

    def _plan(self, number: int, attempt: int) -> RoundPlan:
        """Wait for devices, for a limited time, and choose. Only the first plan of a server waits for every device: a
        later one is content with a quorum, for a device that has gone may not come back."""
        options, deadline = self.options.quorum, time.monotonic() + self.options.quorum.wait_s
        while True:
            nodes = list(self.grid.inner.get_node_ids())
            devices = max(len(nodes), self.options.devices)
            plan = plan_round(nodes, self.grid.benched, devices, options, self._chance(number, attempt))
            connected = len(set(nodes) - self.grid.benched)
            wanted = self.options.devices - len(self.grid.benched & set(nodes))
            enough = self._gathered and len(plan.chosen) >= plan.needed
            if connected >= wanted or enough or time.monotonic() > deadline:
                self._gathered = True
                return plan
            time.sleep(POLL_S)

    def _chance(self, number: int, attempt: int) -> random.Random:
        """What devices are chosen by: a seed that anyone knows, or the operating system where nobody may know them."""
        if self.options.privacy.sampling is Sampling.WITHOUT_REPLACEMENT:
            return random.SystemRandom()
        return random.Random(f"{self.options.seed}/{number}/{attempt}")

    def _summary(self) -> Summary | NoisySummary:
        kind = NoisySummary if self.options.statistics.noisy else Summary
        return kind(self.options.labels, self.options.statistics)

    def _collector(self, number: int, attempt: int, summary: Summary | NoisySummary) -> Collector:
        if STRATEGIES[self.options.strategy.name].streams:
            inner: Collector = StreamedMean({name: array.shape for name, array in self.weights.items()})
        else:
            inner = AllReplies()
        if self.privacy is not None:
            inner = self.privacy.collector(inner, self.weights)
        if self.scaffold is not None:
            inner = self.scaffold.collector(inner, self.weights, self._rate(number))
        options = self.options
        if options.kept_updates and is_due(number, options.kept_every, options.rounds):
            inner = KeptModels(inner, models_folder(self.out, number, attempt), options.kept_updates)

        known = {entry["node"] for entry in self.journal.updates(number, attempt)}

        def note(reply: Message, update: Update) -> None:
            if str(update.node) not in known:
                contents = self.contents.add(number, attempt, reply)
                self.journal.add_update(number, attempt, update, contents=contents)
            summary.add(reply, update)

        return _Noted(inner, note)

    def _record(
        self, number: int, attempt: int, plan: RoundPlan, came: list[Update], told: RoundStatistics | None
    ) -> RoundRecord:
        clients = tuple(
            ClientRecord(
                u.device, u.examples, u.train_loss, u.seconds, u.norm, str(u.node), u.codec.value, u.upload_bytes
            )
            for u in sorted(came, key=lambda u: (u.device, u.node))
        )
        refused = tuple(RefusedReply(str(node), why.reason.value, why.detail) for node, why in self.grid.refused)
        spent = self.privacy.record(len(came)) if self.privacy else None
        file = f"rounds/round-{number}.npz"
        return RoundRecord(number, file, clients, refused, len(plan.chosen), attempt, spent, told)

    def _no_quorum(self, number: int, attempts: int, plan: RoundPlan, came: list[Update]) -> str:
        refused = Counter(why.reason.value for _, why in self.grid.refused)
        why = f"; refused replies: {', '.join(f'{n} {name}' for name, n in sorted(refused.items()))}" if refused else ""
        last = f" ({self.grid.refused[-1][1].detail})" if refused else ""
        tried = f"{attempts} of " if attempts < self.options.quorum.attempts else ""
        of_last = f"{len(came)} of {len(plan.chosen)} devices gave a good reply in the last one"
        if len(plan.chosen) < plan.needed:  # so nobody was asked
            of_last = f"{plan.connected} of {self.options.devices} devices were there to be asked in the last one"
        return (
            f"round {number} has no quorum after {tried}{self.options.quorum.attempts} attempts: {of_last}, and "
            f"{plan.needed} are needed{why}{last}"
        )

    def _advice(self) -> str:
        return f"Look at the devices, then continue the run with --resume. Rounds committed: {len(self.records)}."

    def _advice_spent(self) -> str:
        done = f"--resume ends the run; rounds committed: {len(self.records)}. " if self.records else ""
        return f"Look at the devices. {done}More rounds need a new run with a larger max-epsilon."


class _Noted:
    """A collector whose updates are noted, in the journal above all, before they count."""

    def __init__(self, inner: Collector, note: Callable[[Message, Update], None]) -> None:
        self.inner, self.note = inner, note

    def add(self, reply: Message, update: Update) -> None:
        self.note(reply, update)
        self.inner.add(reply, update)

    def replies(self) -> list[Message]:
        return self.inner.replies()
