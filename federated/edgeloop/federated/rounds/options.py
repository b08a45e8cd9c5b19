"""What a run of rounds is to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeloop.errors import OptionsError
from edgeloop.federated.device.compression.codec import Codec
from edgeloop.federated.fold_back.options import CloudOptions
from edgeloop.federated.network.options import NetworkOptions
from edgeloop.federated.rounds.buffered.options import BufferedOptions
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.contradictions import refuse_contradictions
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.journal.options import JournalOptions, Kept
from edgeloop.federated.rounds.negotiation.selection_options import SelectionOptions
from edgeloop.federated.rounds.privacy.options import PrivacyOptions
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.statistics.options import StatisticsOptions
from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions
from edgeloop.quantities import above_zero, at_least, byte_count
from edgeloop.runtime.device import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsOptions:
    """Where to train, on which data, for how long.

    Attributes:
        shards: One .npz per device: the inputs by name (or `x`) and `y`. A device reads its own only. Empty with
            `network`.
        out: Folder of the run: run.json, rounds.json, rounds/round-N.npz, journal/. It must hold no other run.
        resume: Go on with the run in `out` after its last committed round; the options must be those of the run.
        from_round: With `resume`: go back to this round first. The later ones are kept in `branches/` of `out`, and
            `shards` and `guard` may be others than the run was started with.
        devices: The environments of this machine that the devices run in, by turns; they need no TensorFlow. Empty:
            the device environment; with `network` this Python, which only evaluates.
        network: Devices of other machines join, and hold their data. None: a process of this machine for each shard.
        initial: Weights before round 1 by name (w000, w001, ...), float32. None: those in the bundle.
        epochs: Passes over a shard per round.
        lr: Learning rate of plain SGD in round 1.
        lr_decay: The learning rate is multiplied by this after each round. Devices that hold different labels pull
            apart by as much as they step; smaller last steps let their average settle.
        seed: With round and device it fixes every shuffle, so equal options give equal weights
            where every device answers every round.
        round_timeout_s: From sending a round's weights to the last reply that counts.
        timeout_s: The whole run, start included; of simulated devices the time from one reply to the next.
        fraction, quorum, over_select, attempts: As `quorum.QuorumOptions` has them; with the defaults every device must
            answer in every round.
        guard: What a reply may be.
        strategy: How the server makes new weights of a round's updates.
        compression: How updates travel.
        selection: Which of the connected devices may be asked.
        privacy: Clipping, noise and a budget. Needs `edgeloop[privacy]`.
        statistics: What devices are asked to tell of their data.
        journal: What the journal keeps of each update.
        buffered: Make new weights whenever so many updates have come; None: of the devices that a round asked.
        evaluation: Data of the server (.npz, as a shard) that every round is measured on. The best round is kept.
        keras: The .keras file that was converted. It is written with the new weights to `model.keras` in `out`.
        cloud: Make releases of the weights of rounds. Needs `keras`. None: the rounds alone.
        max_memory_mb: For strategies that need all replies of a round at once.
    """

    shards: tuple[Path, ...]
    out: Path
    resume: bool = False
    from_round: int | None = None
    devices: tuple[Device, ...] = ()
    network: NetworkOptions | None = None
    initial: Mapping[str, np.ndarray] | None = None
    rounds: int = 3
    epochs: int = 1
    lr: float = 0.05
    lr_decay: float = 1.0
    seed: int = 0
    round_timeout_s: float = 120.0
    timeout_s: float = 900.0
    fraction: float = 1.0
    quorum: float = 1.0
    over_select: float = 1.3
    attempts: int = 3
    guard: GuardOptions = field(default_factory=GuardOptions)
    strategy: StrategyOptions = field(default_factory=StrategyOptions)
    compression: CompressionOptions = field(default_factory=CompressionOptions)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    privacy: PrivacyOptions = field(default_factory=PrivacyOptions)
    statistics: StatisticsOptions = field(default_factory=StatisticsOptions)
    journal: JournalOptions = field(default_factory=JournalOptions)
    buffered: BufferedOptions | None = None
    evaluation: Path | None = None
    keras: Path | None = None
    cloud: CloudOptions | None = None
    max_memory_mb: float = 2000.0

    def __post_init__(self) -> None:
        counts = {"the number of shards": self.device_count, "--rounds": self.rounds, "--epochs": self.epochs}
        if self.initial is not None:
            counts["the number of initial weights"] = len(self.initial)
        for name, count in counts.items():
            at_least(count, 1, name)
        above_zero(self.lr, "--lr")
        above_zero(self.lr_decay, "--lr-decay")
        above_zero(self.round_timeout_s, "round_timeout_s")
        quorum = self.replies_options()
        teachers = self.cloud.distill if self.cloud else 0
        codec = self.compression.upload
        keeps = self.journal.updates is Kept.CONTENTS
        refuse_contradictions(
            self.privacy,
            self.strategy,
            quorum,
            self.buffered,
            codec=codec,
            teachers=teachers,
            statistics=self.statistics,
            keeps=keeps,
        )
        if self.network is not None:
            self._check_network()
        if self.buffered is not None:
            self.buffered.sizes(self.device_count)
        self.strategy.check_rate(self.lr, self.lr_decay, self.rounds)
        if self.keras is not None and not self.keras.is_file():
            raise OptionsError(f"--keras {self.keras} does not exist", advice="Pass the .keras file of the bundle.")
        if self.from_round is not None:
            at_least(self.from_round, 1, "--from-round")
            if not self.resume:
                raise OptionsError("--from-round goes back in a run that exists", advice="Add --resume.")
            if self.strategy.name is StrategyName.SCAFFOLD:
                raise OptionsError(
                    "--from-round goes back, and devices of scaffold keep the control variates of the last round",
                    advice="Begin a new run in another folder.",
                )
        if self.cloud is not None and self.keras is None:
            raise OptionsError(
                "[cloud] makes releases of the Keras model, and none is named",
                advice="Add [model] keras, the .keras file that was converted.",
            )
        if self.strategy.name is StrategyName.SCAFFOLD and self.compression.upload is not Codec.NONE:
            raise OptionsError(
                f"[strategy] scaffold goes with no [compression], and upload is {self.compression.upload.value!r}",
                advice="scaffold computes what each device keeps from exactly what it sends: leave [compression] out.",
            )
        byte_count(self.max_memory_mb, "max-memory-mb")
        above_zero(self.timeout_s, "timeout_s")
        at_least(self.seed, 0, "--seed")
        for device in self.devices:
            if device.ssh is not None:
                raise OptionsError(
                    f"{device.name} is another machine, and devices are simulated on this one",
                    advice="Pass local:PYTHON.",
                )

    def _check_network(self) -> None:
        if self.shards:
            raise OptionsError(
                f"{len(self.shards)} shards are given, and the devices of [network] hold their data themselves",
                advice="Leave out [devices] shards, or [network]. A device on this machine may join as well.",
            )
        if self.strategy.name is StrategyName.SCAFFOLD:
            raise OptionsError(
                "[strategy] scaffold knows devices by their number, and those of [network] have none",
                advice="Choose fed-avg or fed-prox.",
            )

    @property
    def device_count(self) -> int:
        """How many devices the run is for."""
        return len(self.shards) if self.network is None else self.network.devices

    def replies_options(self) -> QuorumOptions:
        """How many devices a round needs, and how long it waits for them."""
        return QuorumOptions(
            fraction=self.fraction,
            quorum=self.quorum,
            over_select=self.over_select,
            deadline_s=self.round_timeout_s,
            attempts=self.attempts,
            **({} if self.network is None else {"wait_s": self.network.wait_s}),
        )
