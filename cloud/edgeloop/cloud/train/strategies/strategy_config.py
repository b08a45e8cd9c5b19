"""[strategy]: where a training runs, and what `auto` asks for."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.cloud.train.strategies.choose import Bound, Gradients, Links, Workers
from edgeloop.cloud.train.strategies.strategies import Strategy
from edgeloop.quantities import above_zero, at_least

FIRST_STEP_TIMEOUT_S = 600.0  # at least


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
        at_least(self.virtual_cpus, 1, "[strategy] virtual-cpus")
        for name in ("start_timeout_s", "heartbeat_s", "hang_timeout_s"):
            above_zero(getattr(self, name), f"[strategy] {name.replace('_', '-')}")

    @property
    def first_step_timeout_s(self) -> float:
        """As `hang_timeout_s`, before the first step, which takes longer: TensorFlow traces and compiles it."""
        return max(FIRST_STEP_TIMEOUT_S, 2 * self.hang_timeout_s)
