"""Pipeline parallelism over devices, with data parallelism around it: a batch in, the same update as without out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from edgeloop.cloud.train.parallel.balance import bubble_in_theory
from edgeloop.cloud.train.parallel.partition import split_model
from edgeloop.cloud.train.parallel.schedule import StageRun, run_pipeline
from edgeloop.cloud.train.parallel.stage import Stage
from edgeloop.errors import OptionsError
from edgeloop.extras import need
from edgeloop.quantities import at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class GPipeOptions:
    """How a model is divided.

    Attributes:
        stages: Parts of the model, each on a device of its own.
        micro_batches: Pieces of a replica's batch that are in the pipeline at the same time.
        replicas: Pipelines side by side, each with its share of the batch.
    """

    stages: int = 2
    micro_batches: int = 8
    replicas: int = 1

    def __post_init__(self) -> None:
        for name in ("stages", "micro_batches", "replicas"):
            at_least(getattr(self, name), 1, f"[strategy] {name.replace('_', '-')}")
        if self.stages < 2:
            raise OptionsError(
                f"[strategy] stages is {self.stages}", advice="It must be 2 or more, or choose another strategy."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStep:
    """One batch.

    Attributes:
        loss: Mean over its examples, and the penalties of weights.
        bubble: Share of the stages' time, 0 to 1, in which they waited.
    """

    loss: float
    bubble: float


class Pipeline:
    """A model, divided over devices and trained there.

    A context manager, also several times: the threads of its stages live in the block.

    Attributes:
        cost_ms: Measured time of each stage on one micro-batch, forward and backward.
        replicas: The stages of each replica; all replicas hold the same values.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Callable[[], Any],
        loss: Callable[[Any, Any], Any],
        options: GPipeOptions,
        devices: Sequence[str],
        features: Sequence[Any],
    ) -> None:
        """Measure the model's operations, divide it, and copy each stage to its device.

        Args:
            model: A built Sequential or functional Keras 3 model.
            optimizer: Makes a Keras optimizer; called once for each stage of each replica.
            loss: Of (labels, outputs), a value for each example [n].
            devices: Names as TensorFlow has them, at least stages × replicas: the stages of a replica stand together.
            features: One batch of inputs, a tensor for each of the model's inputs; its first micro-batch is measured.

        Raises:
            OptionsError: Fewer devices than stages, or an optimizer that looks at all gradients at once.
            ModelError: A subclassed model.
        """
        if len(devices) < options.stages * options.replicas:
            raise OptionsError(
                f"{options.stages} stages of {options.replicas} replicas need {options.stages * options.replicas} "
                f"devices, and there are {len(devices)}",
                advice="Choose fewer stages or replicas, or set [strategy] virtual-cpus to try it on the CPU.",
            )
        if getattr(optimizer(), "global_clipnorm", None):
            raise OptionsError(
                "global_clipnorm needs the gradients of all stages at once", advice="Choose clipnorm or clipvalue."
            )
        self.options = options
        size = -(-int(features[0].shape[0]) // (options.micro_batches * options.replicas))
        parts = split_model(model, options.stages, [tensor[:size] for tensor in features])
        self.cost_ms = tuple(part.cost_ms for part in parts)
        self.replicas = [
            [
                Stage(part, devices[r * options.stages + k], optimizer(), loss if k == options.stages - 1 else None)
                for k, part in enumerate(parts)
            ]
            for r in range(options.replicas)
        ]
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Pipeline:
        self._pool = ThreadPoolExecutor((self.options.stages + 1) * self.options.replicas)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._pool is not None  # `__enter__` made it
        self._pool.shutdown(cancel_futures=True)
        self._pool = None

    @property
    def bubble_in_theory(self) -> float:
        """Share of the stages' time that they wait if all cost the same."""
        return bubble_in_theory(self.options.stages, self.options.micro_batches)

    def step(self, features: Sequence[Any], labels: Any) -> PipelineStep:
        """Train on one batch: the gradients are those of the mean loss over it, as on one device.

        Args:
            features: A tensor [n, ...] for each of the model's inputs.
            labels: [n, ...], one tensor or several in one structure; n is at least micro_batches × replicas.
        """
        runs, gradients, statistics = self._run(features, labels)
        penalty = self._update(gradients, statistics)
        stage_runs = [run for replica, _ in runs for run in replica]
        waited = 1 - sum(run.busy_s for run in stage_runs) / sum(self.options.stages * wall_s for _, wall_s in runs)
        return PipelineStep(loss=sum(run.loss for run in stage_runs) + penalty, bubble=waited)

    def gradients(self, features: Sequence[Any], labels: Any) -> list[Any]:
        """Of the mean loss, stage after stage, for the trainable weights of each; nothing is updated."""
        return [gradient for stage in self._run(features, labels)[1] for gradient in stage]

    def predict(self, features: Sequence[Any]) -> Any:
        """The model's output for some features, as after training: through the stages of the first replica."""
        values = list(features)
        for stage in self.replicas[0]:
            values = stage.predict(values)
        return values[0]

    def _run(self, features: Sequence[Any], labels: Any) -> tuple[list[Any], list[list[Any]], list[list[Any]]]:
        """What each replica made, and for each stage the gradients summed and the statistics averaged over replicas."""
        tf = need("tensorflow", extra="cloud")
        pieces = self.options.micro_batches * self.options.replicas
        count = int(features[0].shape[0])
        if count < pieces:
            raise OptionsError(
                f"a batch of {count} cannot be divided into {pieces} micro-batches", advice="Choose a larger batch."
            )
        borders = [count * i // pieces for i in range(pieces + 1)]
        parts = [
            ([tensor[a:b] for tensor in features], (_piece(labels, a, b), tf.constant(count)))
            for a, b in pairwise(borders)
        ]
        assert self._pool is not None, "a pipeline runs within its `with` block"
        futures = [self._pool.submit(self._run_replica, r, parts) for r in range(self.options.replicas)]
        runs = [future.result() for future in futures]
        stages = [[replica[k] for replica, _ in runs] for k in range(self.options.stages)]
        gradients = [_sums([run.gradients for run in stage]) for stage in stages]
        statistics = [[total / pieces for total in _sums([run.statistics for run in stage])] for stage in stages]
        return runs, gradients, statistics

    def _run_replica(self, r: int, parts: Sequence[Any]) -> tuple[list[StageRun], float]:
        tf = need("tensorflow", extra="cloud")
        assert self._pool is not None  # `_run` looked
        first = r * self.options.micro_batches  # random numbers are those of the micro-batch among all replicas'
        own = parts[first : first + self.options.micro_batches]
        inputs, labels = [p[0] for p in own], [p[1] for p in own]
        return run_pipeline(self.replicas[r], inputs, labels, lambda i: tf.constant(first + i), self._pool)

    def _update(self, gradients: Sequence[list[Any]], statistics: Sequence[list[Any]]) -> float:
        """Returns the penalties of the weights, which all replicas have in common."""
        tf = need("tensorflow", extra="cloud")
        micro = tf.constant(self.options.micro_batches * self.options.replicas)
        penalty = 0.0
        for r, stages in enumerate(self.replicas):
            for stage, summed, mean in zip(stages, gradients, statistics, strict=True):
                found = stage.update(summed, mean, micro)
                penalty += float(found) if r == 0 else 0.0
        return penalty


def _piece(labels: Any, begin: int, end: int) -> Any:
    return need("tensorflow", extra="cloud").nest.map_structure(lambda tensor: tensor[begin:end], labels)


def _sums(lists: Sequence[list[Any]]) -> list[Any]:
    return [sum(values[1:], values[0]) for values in zip(*lists, strict=True)]
