"""[strategy]: where a training runs, and what `auto` asks for."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.cloud.train.strategies.choose import Gradients, Links, ModelSize, StepBound, Workers
from edgeloop.cloud.train.strategies.strategies import Strategy
from edgeloop.errors import OptionsError
from edgeloop.quantities import above_zero, at_least

MICRO_BATCHES = 8
FIRST_STEP_TIMEOUT_S = 600.0  # at least


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyConfig:
    """Where it runs; what cannot be measured here, and `auto` asks for.

    Attributes:
        stages: Parts of the model, each on a device of its own (pipeline). None: as many as each replica has devices.
        micro_batches: Pieces of a replica's batch that are in the pipeline at the same time.
        replicas: Pipelines side by side, each with a batch of its own in every step.
        virtual_cpus: Devices that the CPU is split into. 1: none.
        tpu: Name or address of a TPU; empty: none is looked for unless name is tpu.
        links: Between the devices or hosts.
        workers: What the hosts are like.
        gradients: How much of the weights a step changes.
        model_size: Whether one device has the memory for the model.
        bound: What a step waits for, as edgeloop train says at its end.
        start_timeout_s: For the other tasks of TF_CONFIG to start.
        heartbeat_s: A worker that sends no sign of life for so long is lost (multi-worker-mirrored).
        hang_timeout_s: Without a finished step or batch of validation for so long, the training counts as lost.
        pause_timeout_s: So long a checkpoint, a callback or the saving of a model may take, in which no step is done.
    """

    name: Strategy = Strategy.AUTO
    stages: int | None = None
    micro_batches: int = MICRO_BATCHES
    replicas: int = 1
    virtual_cpus: int = 1
    tpu: str = ""
    links: Links = Links.FAST
    workers: Workers = Workers.RELIABLE
    gradients: Gradients = Gradients.DENSE
    model_size: ModelSize = ModelSize.FITS
    bound: StepBound = StepBound.UNKNOWN
    start_timeout_s: float = 120.0
    heartbeat_s: float = 10.0
    hang_timeout_s: float = 300.0
    pause_timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("micro_batches", "replicas"):
            at_least(getattr(self, name), 1, f"[strategy] {name.replace('_', '-')}")
        if self.stages is not None:
            at_least(self.stages, 2, "[strategy] stages")
        if self.name != Strategy.AUTO:
            check_pipeline_keys(self, self.name)
        at_least(self.virtual_cpus, 1, "[strategy] virtual-cpus")
        for name in ("start_timeout_s", "heartbeat_s", "hang_timeout_s", "pause_timeout_s"):
            above_zero(getattr(self, name), f"[strategy] {name.replace('_', '-')}")

    @property
    def first_step_timeout_s(self) -> float:
        """As `hang_timeout_s`, before the first step, which takes longer: TensorFlow traces and compiles it."""
        return max(FIRST_STEP_TIMEOUT_S, 2 * self.hang_timeout_s)


def check_pipeline_keys(config: StrategyConfig, chosen: Strategy) -> None:
    """Whether the strategy that trains takes the keys of a pipeline that are given.

    Raises:
        OptionsError: Some are given, and it is another one.
    """
    given = config.stages is not None or config.replicas > 1 or config.micro_batches != MICRO_BATCHES
    if given and chosen != Strategy.PIPELINE:
        raise OptionsError(
            f"[strategy] stages, replicas and micro-batches are of the strategy pipeline, and this is {chosen.value}",
            advice='Leave them out, or set [strategy] name = "pipeline".',
        )
