"""What `federation.toml` says, as frozen dataclasses: one table each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgeloop import settings
from edgeloop.errors import OptionsError
from edgeloop.federated.fold_back.options import CloudOptions
from edgeloop.federated.network.options import NetworkOptions
from edgeloop.federated.rounds.buffered.options import BufferedOptions, RoundsMode
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.journal.options import JournalOptions
from edgeloop.federated.rounds.negotiation.selection_options import SelectionOptions
from edgeloop.federated.rounds.options import RoundsOptions
from edgeloop.federated.rounds.privacy.options import PrivacyOptions
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.statistics.options import StatisticsOptions
from edgeloop.federated.rounds.strategies import StrategyOptions
from edgeloop.federated.simulation.options import SimulationOptions
from edgeloop.quantities import at_least
from edgeloop.runtime.chosen_devices import parse_devices

BUFFERED = 'Add mode = "buffered" to [rounds], or leave [buffered] out.'
START_S = 300.0  # of Flower's processes and the devices, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """`[model]`.

    Attributes:
        bundle: A bundle folder with a trainable variant.
        keras: The .keras file that was converted, to be written with the new weights.
    """

    bundle: Path
    keras: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsTable:
    """`[rounds]`: how often, how long, and how the devices train.

    Attributes:
        count: Rounds of the run.
        mode: Whether rounds wait for the devices that they asked.
        fraction, quorum, over_select, deadline_s, attempts: As `QuorumOptions` has them.
        epochs: Passes over a device's data per round.
        learning_rate: Of round 1; times `learning_rate_decay` after each round.
        seed: Of every shuffle and of the choice of devices: equal options give equal weights where every device answers
            every round. The noise of `[privacy]`, and a sample without replacement, are the operating system's.
        max_memory_mb: For strategies that need all replies of a round at once.
    """

    count: int = 3
    mode: RoundsMode = RoundsMode.SYNCHRONOUS
    fraction: float = 1.0
    quorum: float = 1.0
    over_select: float = 1.3
    deadline_s: float = 120.0
    attempts: int = 3
    epochs: int = 1
    learning_rate: float = 0.05
    learning_rate_decay: float = 1.0
    seed: int = 0
    max_memory_mb: float = 2000.0

    def __post_init__(self) -> None:
        self.quorum_options()

    def quorum_options(self) -> QuorumOptions:
        """The part that says how many devices a round needs."""
        return QuorumOptions(
            fraction=self.fraction,
            quorum=self.quorum,
            over_select=self.over_select,
            deadline_s=self.deadline_s,
            attempts=self.attempts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesTable:
    """`[devices]`: processes of this machine.

    Attributes:
        shards: One .npz a device: the inputs by name (or x), and y.
        on: Environments of the devices: local:PYTHON, or those of a fleet file. Empty: the device environment.
    """

    shards: tuple[Path, ...] = ()
    on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationTable:
    """`[evaluation]`. `data`: an .npz of the server, as a shard, that every round is measured on."""

    data: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """A run of rounds, as its file describes it."""

    model: ModelTable
    rounds: RoundsTable = field(default_factory=RoundsTable)
    strategy: StrategyOptions = field(default_factory=StrategyOptions)
    guard: GuardOptions = field(default_factory=GuardOptions)
    compression: CompressionOptions = field(default_factory=CompressionOptions)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    privacy: PrivacyOptions = field(default_factory=PrivacyOptions)
    statistics: StatisticsOptions = field(default_factory=StatisticsOptions)
    journal: JournalOptions = field(default_factory=JournalOptions)
    buffered: BufferedOptions = field(default_factory=BufferedOptions)
    devices: DevicesTable = field(default_factory=DevicesTable)
    network: NetworkOptions | None = None
    evaluation: EvaluationTable = field(default_factory=EvaluationTable)
    cloud: CloudOptions | None = None
    simulation: SimulationOptions | None = None

    def rounds_options(self, out: Path, *, resume: bool = False, from_round: int | None = None) -> RoundsOptions:
        """The same for `run_rounds`.

        Raises:
            OptionsError: No shards, a number out of range, or tables that contradict each other.
        """
        rounds, synchronous = self.rounds, self.rounds.mode is RoundsMode.SYNCHRONOUS
        if synchronous and self.buffered != BufferedOptions():
            raise OptionsError("[buffered] is given, and the rounds are synchronous", advice=BUFFERED)
        if not self.devices.shards and self.network is None:
            raise OptionsError(
                "there are no devices",
                advice="Add --shard F.npz, or [devices] shards, once a device, or [network] for devices that join.",
            )
        wait_s = START_S if self.network is None else START_S + self.network.wait_s
        return RoundsOptions(
            shards=self.devices.shards,
            network=self.network,
            out=out,
            resume=resume,
            from_round=from_round,
            devices=tuple(parse_devices(self.devices.on)),
            rounds=rounds.count,
            epochs=rounds.epochs,
            lr=rounds.learning_rate,
            lr_decay=rounds.learning_rate_decay,
            seed=rounds.seed,
            round_timeout_s=rounds.deadline_s,
            timeout_s=START_S + rounds.count * rounds.attempts * (rounds.deadline_s + wait_s),
            fraction=rounds.fraction,
            quorum=rounds.quorum,
            over_select=rounds.over_select,
            attempts=rounds.attempts,
            guard=self.guard,
            strategy=self.strategy,
            compression=self.compression,
            selection=self.selection,
            privacy=self.privacy,
            statistics=self.statistics,
            journal=self.journal,
            buffered=None if synchronous else self.buffered,
            evaluation=self.evaluation.data,
            keras=self.model.keras,
            cloud=self.cloud,
            max_memory_mb=rounds.max_memory_mb,
        )


def read_federation(path: Path) -> Federation:
    """The run that a TOML file describes; relative paths in it are relative to its folder.

    Raises:
        DataError: The file cannot be read, or is no TOML.
        OptionsError: An unknown key (the nearest known one is named), a wrong value, or a contradiction.
    """
    found = settings.build(Federation, settings.read_toml(path), str(path))
    at_least(found.rounds.count, 1, f"{path}: rounds: count")
    base = path.resolve().parent
    devices = {**asdict(found.devices), "shards": tuple(base / shard for shard in found.devices.shards)}
    data, keras = found.evaluation.data, found.model.keras
    return Federation(
        model=ModelTable(bundle=base / found.model.bundle, keras=keras and base / keras),
        rounds=found.rounds,
        strategy=found.strategy,
        guard=found.guard,
        compression=found.compression,
        selection=found.selection,
        privacy=found.privacy,
        statistics=found.statistics,
        journal=found.journal,
        buffered=found.buffered,
        devices=DevicesTable(**devices),
        network=settings.anchored(found.network, base),
        evaluation=EvaluationTable(data=None if data is None else base / data),
        cloud=settings.anchored(found.cloud, base),
        simulation=found.simulation and found.simulation.below(base),
    )
