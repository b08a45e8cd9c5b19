"""What `train.toml` says, as frozen dataclasses: one table each, every key also `--set TABLE.KEY=VALUE`."""

from __future__ import annotations

import dataclasses
import enum
import re
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeloop import settings
from edgeloop.cloud.input.options import PipelineOptions
from edgeloop.cloud.train.budget import BudgetConfig
from edgeloop.cloud.train.checkpoints.checkpoints import CheckpointOptions
from edgeloop.cloud.train.choose import Bound, Gradients, Links, Workers
from edgeloop.cloud.train.data import DataConfig
from edgeloop.cloud.train.distill.options import DistillConfig
from edgeloop.cloud.train.servers.staleness import ParameterServerConfig
from edgeloop.cloud.train.strategies import Strategy
from edgeloop.errors import OptionsError
from edgeloop.quantities import above_zero


def _at_least(option: str, value: int, least: int) -> None:
    if value < least:
        raise OptionsError(f"{option} is {value}", advice=f"It must be {least} or more.")


FIRST_STEP_TIMEOUT_S = 600.0  # at least


class Loss(enum.StrEnum):
    """What a step lowers; AUTO takes the first that fits the labels and the model's outputs."""

    AUTO = "auto"
    SPARSE_CATEGORICAL_CROSSENTROPY = "sparse-categorical-crossentropy"
    BINARY_CROSSENTROPY = "binary-crossentropy"
    MEAN_SQUARED_ERROR = "mean-squared-error"
    MEAN_ABSOLUTE_ERROR = "mean-absolute-error"
    HUBER = "huber"


class Schedule(enum.StrEnum):
    """How the learning rate goes on after its warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"  # to 0 at the last step


class Scaling(enum.StrEnum):
    """What several replicas do to the learning rate."""

    LINEAR = "linear"  # times the number of replicas, reached by a warm-up: Goyal et al. 2017, arXiv 1706.02677
    NONE = "none"


class Precision(enum.StrEnum):
    """What layers compute in; weights, the last layer and the saved model stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"  # with dynamic loss scaling


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model.

    Attributes:
        name: A built-in one, a class of keras.applications, a .keras file, or package.module:function.
        weights: Weights to load into it: .weights.h5, .h5 or .keras.
        options: Given to what builds the model.
        warm_start: A bundle, a run folder, a .keras file, or federated weights (.npz) to start from.
    """

    name: str = "small-cnn"
    weights: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    warm_start: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """How weights change.

    Attributes:
        name: As Keras calls it, e.g. `adam`, `sgd`, `adamw`.
        learning_rate: For one replica.
        scaling: What several replicas do to it.
        warmup_epochs: Over which a scaled rate is reached, in equal steps. 5 as in Goyal et al.
        options: Given to Keras's class, e.g. `momentum = 0.9`.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    schedule: Schedule = Schedule.CONSTANT
    scaling: Scaling = Scaling.LINEAR
    warmup_epochs: float = 5.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        above_zero(self.learning_rate, "[optimizer] learning-rate")
        if not self.warmup_epochs >= 0:
            raise OptionsError(f"[optimizer] warmup-epochs is {self.warmup_epochs:g}", advice="It must be 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How long, and by what measure.

    Attributes:
        epochs: Passes over the training data, at most.
        from_logits: Whether the model's outputs are logits. None: unless its last layer is a softmax or sigmoid.
        patience: Epochs without a lower validation loss after which training stops; 0: never.
        seed: Of the initial weights, of every shuffle and of every random layer.
        steps_per_call: Steps of one call of the traced function; 8 take 0.67 to 0.74 of the time of single ones.
        deterministic: Whether TensorFlow may use no operation whose result differs from run to run.
    """

    epochs: int = 20
    loss: Loss = Loss.AUTO
    from_logits: bool | None = None
    patience: int = 5
    seed: int = 0
    steps_per_call: int = 8
    deterministic: bool = True

    def __post_init__(self) -> None:
        _at_least("[loop] epochs", self.epochs, 1)
        _at_least("[loop] patience", self.patience, 0)
        _at_least("[loop] seed", self.seed, 0)
        _at_least("[loop] steps-per-call", self.steps_per_call, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyConfig:
    """Where it runs; what cannot be measured here, and `auto` asks for.

    Attributes:
        virtual_cpus: Devices that the CPU is split into. 1: none.
        tpu: Name or address of a TPU; empty: none is looked for unless name is tpu.
        links: Between the devices or hosts.
        workers: What the hosts are like.
        gradients: How much of the weights a step changes.
        bound: What a step waits for, as edgeloop doctor says.
        start_timeout_s: For the other tasks of TF_CONFIG to start.
        heartbeat_s: A worker that sends no sign of life for so long is lost (multi-worker-mirrored).
        hang_timeout_s: Without a finished step or batch of validation for so long, the training counts as lost.
    """

    name: Strategy = Strategy.AUTO
    virtual_cpus: int = 1
    tpu: str = ""
    links: Links = Links.FAST
    workers: Workers = Workers.RELIABLE
    gradients: Gradients = Gradients.DENSE
    bound: Bound = Bound.UNKNOWN
    start_timeout_s: float = 120.0
    heartbeat_s: float = 10.0
    hang_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        _at_least("[strategy] virtual-cpus", self.virtual_cpus, 1)
        for name in ("start_timeout_s", "heartbeat_s", "hang_timeout_s"):
            above_zero(getattr(self, name), f"[strategy] {name.replace('_', '-')}")

    @property
    def first_step_timeout_s(self) -> float:
        """As `hang_timeout_s`, before the first step, which takes longer: TensorFlow traces and compiles it."""
        return max(FIRST_STEP_TIMEOUT_S, 2 * self.hang_timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """What makes a step smaller, for the same result.

    Attributes:
        accumulate: Parts that a replica's batch is computed in, one after the other; their gradients are added.
        recompute: Whether the backward pass computes activations again instead of keeping them.
    """

    accumulate: int = 1
    precision: Precision = Precision.FLOAT32
    recompute: bool = False

    def __post_init__(self) -> None:
        _at_least("[memory] accumulate", self.accumulate, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbacksConfig:
    """Functions of the user, each `package.module:function`.

    Attributes:
        epoch: Called after every epoch with its record and the model.
    """

    epoch: tuple[str, ...] = ()


BATCHES = PipelineOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """A whole training. `pipeline.batch` is of one replica."""

    data: DataConfig
    pipeline: PipelineOptions = BATCHES
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig()
    strategy: StrategyConfig = StrategyConfig()
    memory: MemoryConfig = MemoryConfig()
    checkpoints: CheckpointOptions = field(default_factory=CheckpointOptions)
    parameter_server: ParameterServerConfig = field(default_factory=ParameterServerConfig)
    callbacks: CallbacksConfig = CallbacksConfig()
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)

    def __post_init__(self) -> None:
        if self.pipeline.batch % self.memory.accumulate:
            raise OptionsError(
                f"[pipeline] batch is {self.pipeline.batch}, which {self.memory.accumulate} equal parts cannot make up",
                advice="Choose [memory] accumulate so that it divides the batch.",
            )


BARE_KEY = re.compile("[A-Za-z0-9_-]+")  # https://toml.io/en/v1.0.0#keys


def read_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """The training that a TOML file describes; relative paths in it are relative to its folder.

    Args:
        changes: `TABLE.KEY=VALUE`, each replaces what the file says; paths as the shell has them.

    Raises:
        DataError: The file cannot be read, or is no TOML.
        OptionsError: An unknown key (the nearest known one is named), a wrong value, or a contradiction.

    Example:
        >>> read_train_config(Path("train.toml"), ["pipeline.batch=64"]).pipeline.batch
        64
    """
    given = _tables(settings.read_toml(path), str(path))
    given = _anchored(TrainConfig, _batches_moved(given, f"{path}: data"), path.resolve().parent)
    for change in changes:
        _set(given, change)
    return settings.build(TrainConfig, _batches_moved(given, f"{path}: data"), str(path))


def with_own_place(config: TrainConfig, name: str) -> TrainConfig:
    """The config for one of several runs that are made of it: its checkpoints lie in a folder `name` of their place."""
    place = config.checkpoints.place
    if not place:
        return config
    return dataclasses.replace(
        config, checkpoints=dataclasses.replace(config.checkpoints, place=f"{place.rstrip('/')}/{name}")
    )


def to_toml(config: Any) -> str:
    """A TOML file that `read_config` reads as the same config from any folder: paths in it are absolute. Keys that are
    None are left out."""
    return "\n".join(_lines(config, ())).strip() + "\n"


def _tables(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Each table as a dict of its own; `strategy = "auto"` is short for its first key."""
    kinds = {field.name.replace("_", "-"): hint for field, hint in _hints(TrainConfig)}
    settings.checked(dict.fromkeys(kinds, Any), given, where)
    short = {name: value for name, value in given.items() if isinstance(value, str)}
    first = {name: dataclasses.fields(kinds[name.replace("_", "-")])[0].name for name in short}
    return {**given, **{name: {first[name]: value} for name, value in short.items()}}


def _batches_moved(tables: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Keys of [pipeline] that stand in [data], where they read as well, at their place."""
    data = tables.get("data")
    if not isinstance(data, Mapping):
        return dict(tables)
    own, other = ({one.name for one in dataclasses.fields(kind)} for kind in (DataConfig, PipelineOptions))
    settings.checked({name.replace("_", "-"): Any for name in own | other}, data, where)
    moved = {key for key in data if key.replace("-", "_") in other - own}
    kept = {key: value for key, value in data.items() if key not in moved}
    pipeline = {**tables.get("pipeline", {}), **{key: data[key] for key in data if key in moved}}
    return {**tables, "data": kept, **({"pipeline": pipeline} if pipeline else {})}


def _anchored(kind: type, given: Mapping[str, Any], base: Path) -> dict[str, Any]:
    hints = {field.name: (field, hint) for field, hint in _hints(kind)}
    found: dict[str, Any] = {}
    for key, value in given.items():
        field, hint = hints.get(key.replace("-", "_"), (None, None))
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            value = _anchored(typing.cast(type, hint), value, base)
        elif isinstance(value, str) and (hint is Path or (field is not None and _names_path(field, value))):
            value = str(base / value)
        found[key] = value
    return found


def _names_path(field: dataclasses.Field, value: Any) -> bool:
    """Whether a text is a path of this machine: a .keras file, or the folder of a field that may also be an address."""
    folder = field.metadata.get("folder") and value and "://" not in value
    return field.type == "str" and bool(folder or value.endswith(".keras"))


def _set(given: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    *tables, name = key.strip().replace("-", "_").split(".")
    if not equals or not tables or not all((*tables, name)):
        raise OptionsError(f"--set is {change!r}", advice="Write TABLE.KEY=VALUE, e.g. data.batch=64.")
    table = given
    for one in tables:
        table[one] = dict(table.get(one) or {})
        table = table[one]
    for old in [old for old in table if old.replace("-", "_") == name]:
        del table[old]
    try:
        table[name] = tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # a text needs no quotes here
        table[name] = text


def _hints(kind: type) -> list[tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(kind)
    return [(one, settings.plain(hints[one.name])) for one in dataclasses.fields(kind)]


def _lines(config: Any, path: tuple[str, ...]) -> list[str]:
    values, tables = [], []
    for key, value in _pairs(config):
        if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
            tables.append((key, value))
        elif value is not None:
            values.append(f"{key} = {_toml(value)}")
    lines = ["", f"[{'.'.join(path)}]", *values] if values else []
    return lines + [line for key, value in tables for line in _lines(value, (*path, key))]


def _pairs(config: Any) -> list[tuple[str, Any]]:
    """Keys as TOML has them, and values. The keys of a mapping are the user's own, and stay as they are."""
    if isinstance(config, Mapping):
        return [(name if BARE_KEY.fullmatch(name) else quoted(name), value) for name, value in config.items()]
    found = []
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if isinstance(value, str) and _names_path(one, value):
            value = Path(value)
        found.append((one.name.replace("_", "-"), value))
    return found


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list, frozenset)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Path):
        value = value.absolute()
    return quoted(str(value.value if isinstance(value, enum.Enum) else value))


def quoted(text: str) -> str:
    """A text as TOML's basic string."""
    return '"' + "".join(f"\\{c}" if c in '\\"' else c if c.isprintable() else f"\\u{ord(c):04X}" for c in text) + '"'
