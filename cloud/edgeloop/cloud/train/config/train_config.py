"""A whole training as frozen dataclasses: one table of `train.toml` each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from edgeloop.cloud.input.options import PipelineOptions
from edgeloop.cloud.train.checkpoints.checkpoints import CheckpointOptions
from edgeloop.cloud.train.config.tables import CallbacksConfig, LoopConfig, MemoryConfig, ModelConfig, OptimizerConfig
from edgeloop.cloud.train.data.data_config import DataConfig
from edgeloop.cloud.train.distill.options import DistillConfig
from edgeloop.cloud.train.run.budget import BudgetConfig
from edgeloop.cloud.train.servers.staleness import ParameterServerConfig
from edgeloop.cloud.train.strategies.strategy_config import StrategyConfig
from edgeloop.errors import OptionsError

BATCHES = PipelineOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """A whole training. `pipeline.batch` is of one replica."""

    data: DataConfig
    pipeline: PipelineOptions = BATCHES
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    checkpoints: CheckpointOptions = field(default_factory=CheckpointOptions)
    parameter_server: ParameterServerConfig = field(default_factory=ParameterServerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)

    def __post_init__(self) -> None:
        if self.pipeline.batch % self.memory.accumulate:
            raise OptionsError(
                f"[pipeline] batch is {self.pipeline.batch}, which {self.memory.accumulate} equal parts cannot make up",
                advice="Choose [memory] accumulate so that it divides the batch.",
            )


def with_own_place(config: TrainConfig, name: str) -> TrainConfig:
    """The config for one of several runs that are made of it: its checkpoints lie in a folder `name` of their place."""
    place = config.checkpoints.place
    if not place:
        return config
    return dataclasses.replace(
        config, checkpoints=dataclasses.replace(config.checkpoints, place=f"{place.rstrip('/')}/{name}")
    )
