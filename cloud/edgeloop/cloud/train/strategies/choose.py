"""`strategy = "auto"`: the first rule that holds decides, and it is named."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from edgeloop.cloud.train.strategies.strategies import Strategy


class Links(enum.StrEnum):
    """How fast devices or hosts exchange gradients, against how long a step takes."""

    FAST = "fast"
    SLOW = "slow"


class Workers(enum.StrEnum):
    """What the hosts are like."""

    RELIABLE = "reliable"
    UNRELIABLE = "unreliable"  # they vanish, e.g. preemptible machines
    LOW_POWERED = "low-powered"  # or of different speeds: the slowest would set the pace


class StepBound(enum.StrEnum):
    """What a step waits for, as `edgeloop train` says at its end."""

    UNKNOWN = "unknown"
    INPUT = "input"
    COMPUTE = "compute"


class Gradients(enum.StrEnum):
    """How much of the weights a step changes."""

    DENSE = "dense"
    SPARSE = "sparse"  # most weights are embeddings: a step touches few of their rows, and all-reduce would send all


class ModelSize(enum.StrEnum):
    """Whether one device has the memory for the model, its gradients and the optimizer's state."""

    FITS = "fits"
    TOO_LARGE = "too-large"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the rules ask.

    Attributes:
        accelerators: GPUs of this process.
        hosts: Processes that train together.
        parameter_servers: Tasks of type ps in the cluster.
        devices: All devices of this process, CPUs where it has no GPU.
    """

    tpu: bool = False
    accelerators: int = 0
    devices: int = 1
    hosts: int = 1
    parameter_servers: int = 0
    links: Links = Links.FAST
    workers: Workers = Workers.RELIABLE
    bound: StepBound = StepBound.UNKNOWN
    gradients: Gradients = Gradients.DENSE
    model_size: ModelSize = ModelSize.FITS


class Rule(NamedTuple):
    strategy: Strategy
    holds: Callable[[Situation], bool]
    reason: str


class Choice(NamedTuple):
    """`reason` is a whole sentence: which rule decided."""

    strategy: Strategy
    reason: str


RULES = (
    Rule(Strategy.TPU, lambda s: s.tpu, "A TPU was named, so its own strategy trains on its cores."),
    Rule(
        Strategy.PARAMETER_SERVER,
        lambda s: s.parameter_servers > 0 and s.workers == Workers.UNRELIABLE,
        "The workers are unreliable, and with parameter servers the others go on when one is lost.",
    ),
    Rule(
        Strategy.PARAMETER_SERVER,
        lambda s: s.parameter_servers > 0 and s.workers == Workers.LOW_POWERED,
        "The workers are low-powered, and asynchronous steps do not wait for the slowest one.",
    ),
    Rule(
        Strategy.PARAMETER_SERVER,
        lambda s: s.parameter_servers > 0 and s.gradients == Gradients.SPARSE,
        "Most weights are embeddings (sparse), and parameter servers exchange only the rows that a step uses.",
    ),
    Rule(
        Strategy.PARAMETER_SERVER,
        lambda s: s.parameter_servers > 0 and s.links == Links.SLOW and s.bound == StepBound.INPUT,
        "The links are slow and the workers wait for their input, so asynchronous steps hide both.",
    ),
    Rule(
        Strategy.PARAMETER_SERVER,
        lambda s: s.parameter_servers > 0,
        "TF_CONFIG has parameter servers (ps), which no other strategy uses.",
    ),
    Rule(
        Strategy.MULTI_WORKER_MIRRORED,
        lambda s: s.hosts > 1 and s.gradients == Gradients.SPARSE,
        "Several hosts and mostly embeddings (sparse): parameter servers would suit, but TF_CONFIG has none (ps).",
    ),
    Rule(
        Strategy.MULTI_WORKER_MIRRORED,
        lambda s: s.hosts > 1 and (s.workers != Workers.RELIABLE or s.links == Links.SLOW),
        "Several hosts with slow links or unreliable or low-powered workers: parameter servers would suit, but "
        "TF_CONFIG has none (ps).",
    ),
    Rule(
        Strategy.MULTI_WORKER_MIRRORED,
        lambda s: s.hosts > 1,
        "Several reliable hosts and a dense model, so all of them average their gradients in every step (all-reduce).",
    ),
    Rule(
        Strategy.PIPELINE,
        lambda s: s.devices > 1 and s.model_size == ModelSize.TOO_LARGE,
        "The model is too large for one device, so each device holds a part of it (pipeline parallelism).",
    ),
    Rule(
        Strategy.ONE_DEVICE,
        lambda s: s.model_size == ModelSize.TOO_LARGE,
        "The model is too large for one device, and there is no second one to divide it: see [memory].",
    ),
    Rule(
        Strategy.ONE_DEVICE,
        lambda s: s.accelerators > 1 and s.bound == StepBound.INPUT,
        "The training waits for its input, so a second GPU would wait too. See edgeloop doctor.",
    ),
    Rule(
        Strategy.CENTRAL_STORAGE,
        lambda s: s.accelerators > 1 and s.links == Links.SLOW,
        "Several GPUs with slow links between them, so the variables stay in the host's memory.",
    ),
    Rule(
        Strategy.MIRRORED,
        lambda s: s.accelerators > 1,
        "Several GPUs in one host with fast links, so each holds a copy of the model (all-reduce).",
    ),
    Rule(
        Strategy.MIRRORED,
        lambda s: s.accelerators == 0 and s.devices > 1,
        "The CPU was split into several devices, so each holds a copy of the model (all-reduce).",
    ),
    Rule(Strategy.ONE_DEVICE, lambda s: True, "One host with one device."),
)


def choose(situation: Situation) -> Choice:
    """The strategy of the first rule that holds."""
    rule = next(rule for rule in RULES if rule.holds(situation))
    return Choice(rule.strategy, rule.reason)
