"""Training with parameter servers: the coordinator schedules steps on workers, which keep no variables.

The coordinator never waits without a bound: `ClusterCoordinator.join` has none, and a worker that is stopped, not
dead, would hold it for ever. Errors that mean a lost parameter server end the coordinator; who started it starts it
again, and it goes on after the last checkpoint. A lost worker's steps are done by the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.servers.backup_workers import (
    Accumulator,
    make_accumulator,
    mean_update,
    offered_gradient,
    wait_for_gradients,
)
from edgeloop.cloud.train.servers.partitioned import copy_weights, tables
from edgeloop.cloud.train.servers.server_updates import check_rounds, plain_updates
from edgeloop.cloud.train.servers.staleness import (
    Counters,
    Updates,
    asynchronous_step,
    make_counters,
)
from edgeloop.cloud.train.step.evaluation import Evaluation, evaluation
from edgeloop.cloud.train.step.loop import StepFigures, Stopped, Told, never
from edgeloop.cloud.train.step.objective import Objective
from edgeloop.errors import DeviceError
from edgeloop.extras import need

LOOK_S = 0.005
AHEAD = 4  # calls that are scheduled for each worker before one of them is done


class Coordinator:
    """Runs steps on the workers of a cluster.

    Args:
        model: Made within the strategy's scope: its variables lie on the parameter servers.
        here: The same model in this process.
        gradients_of: A batch to its loss and the gradients of the model's variables, then of its tables' parts.

    Raises:
        OptionsError: Options of the optimizer or of the rounds that cannot be kept to here.
    """

    def __init__(
        self,
        strategy: Any,
        workers: int,
        model: Any,
        here: Any,
        optimizer: Any,
        gradients_of: Callable[[Any], tuple[Any, Sequence[Any]]],
        config: TrainConfig,
    ) -> None:
        tf = need("tensorflow", extra="cloud")
        self.strategy, self.workers, self.model, self.here = strategy, workers, model, here
        self.config, self.per_call = config.parameter_server, config.loop.steps_per_call
        self.hang_timeout_s = config.strategy.first_step_timeout_s  # until a step is done
        self._later_timeout_s = config.strategy.hang_timeout_s
        check_rounds(self.config, workers, tables(model))
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        self._apply = plain_updates(model, optimizer, self.config)
        self._gradients_of = gradients_of
        with strategy.scope():
            self.counters: Counters = make_counters()
        self._accumulator: Accumulator | None = None
        self._steps = self._traced(asynchronous_step(gradients_of, self._apply, self.counters, self.config))

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the model and the optimizer, by name."""
        return {f"counters/{name}": value for name, value in self.counters.values().items()}

    def evaluation(self, objective: Objective) -> Callable[[Iterable[Any]], Evaluation]:
        """A function of batches to the figures of the model with the weights of now."""
        tf = need("tensorflow", extra="cloud")
        evaluate = evaluation(tf.distribute.get_strategy(), self.here, objective)

        def evaluate_now(batches: Iterable[Any]) -> Evaluation:
            self.copy_weights()
            return evaluate(batches)

        return evaluate_now

    def copy_weights(self) -> Any:
        """The model of this process, with the weights of now."""
        copy_weights(self.model, self.here)
        return self.here

    def batches(self, dataset: Callable[[], Any], steps: int) -> Any:
        """Batches of the endless `dataset` on every worker, each beginning at a place of its own: the random seeds 0
        and 0 stand for one of the system's."""
        tf = need("tensorflow", extra="cloud")

        def here() -> Any:
            place = tf.raw_ops.RandomUniformInt(
                shape=tf.constant([], tf.int32),
                minval=tf.constant(0, tf.int64),
                maxval=tf.constant(steps, tf.int64),
                seed=0,
                seed2=0,
            )
            return dataset().skip(place)

        return iter(self._coordinator.create_per_worker_dataset(here))

    def run(self, iterator: Any, count: int, epoch: int, told: Told, stop: Stopped = never) -> StepFigures:
        """`count` steps, or fewer where `stop` ends them; returns when none is under way any more.

        Raises:
            DeviceError: No step was done for the hang timeout.
            tensorflow.errors.OpError: A parameter server was lost, or a step failed.
        """
        began = time.perf_counter()
        if self.config.updates == Updates.SYNCHRONOUS:
            losses = self._rounds(iterator, count, told, stop)
        else:
            ahead = 1 if epoch <= self.config.one_worker_epochs else AHEAD * self.workers
            losses = self._asynchronous(iterator, count, ahead, told, stop)
        return StepFigures(losses=losses, seconds=time.perf_counter() - began, waited_s=0.0)

    def _asynchronous(self, iterator: Any, count: int, ahead: int, told: Told, stop: Stopped) -> np.ndarray:
        tf = need("tensorflow", extra="cloud")
        begin, scheduled, done, changed = int(self.counters.taken), 0, 0, time.monotonic()
        calls = []
        while done < count:
            ends = stop(done)
            while not ends and scheduled < count and (scheduled - done < ahead * self.per_call or scheduled == done):
                now = min(self.per_call, count - scheduled)
                calls.append(self._coordinator.schedule(self._steps, args=(iterator, tf.constant(now))))
                scheduled += now
                if ahead == 1:
                    break
            if ends and scheduled == done:
                break
            time.sleep(LOOK_S)
            taken = min(int(self.counters.taken) - begin, scheduled)  # a call of a lost worker is done twice
            if taken > done:
                done, changed = taken, time.monotonic()
                self.hang_timeout_s = self._later_timeout_s
                told(done, float(self.counters.loss))
            self._check_alive(changed)
            self._check_cluster()
        self._drain()
        return np.concatenate([np.zeros(0, np.float32), *(call.fetch() for call in calls)])

    def _rounds(self, iterator: Any, count: int, told: Told, stop: Stopped) -> np.ndarray:
        tf = need("tensorflow", extra="cloud")
        required = self.workers - self.config.backup_workers
        if self._accumulator is None:
            variables = [variable.value for variable in self.model.trainable_variables]
            with self.strategy.scope():
                self._accumulator = make_accumulator(variables, 0)
            self._offer = self._traced_offer(self._accumulator)
            self._update = mean_update(variables, self._apply, self._accumulator)
        losses: list[float] = []
        while len(losses) < count and not stop(len(losses)):
            number = tf.constant(int(self._accumulator.round), tf.int64)
            for _ in range(self.workers):
                self._coordinator.schedule(self._offer, args=(iterator, number))
            wait_for_gradients(self._accumulator, required, self._check_cluster, self.hang_timeout_s)
            self._update(tf.constant(required))
            losses.append(float(self.counters.loss))
            self.hang_timeout_s = self._later_timeout_s
            told(len(losses), losses[-1])
        # a slow worker may still compute a gradient of an old round: it will be dropped, and nobody waits for it
        return np.array(losses, np.float32)

    def notes(self) -> tuple[str, ...]:
        """What became of the gradients, in sentences."""
        if self.config.updates == Updates.SYNCHRONOUS:
            return (f"Gradients that came after their round and were dropped: {int(self.counters.late)}.",)
        ages = ", ".join(f"{age}: {count}" for age, count in self.counters.histogram().items())
        applied, taken = int(self.counters.applied), int(self.counters.taken)
        return (f"Gradients by age in updates: {ages}. {applied} of {taken} were applied.",)

    def _traced(self, replica: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        tf = need("tensorflow", extra="cloud")

        @tf.function
        def steps(iterator: Any, count: Any) -> Any:
            losses = tf.TensorArray(tf.float32, size=count)
            for k in tf.range(count):
                tf.autograph.experimental.set_loop_options(parallel_iterations=1)
                losses = losses.write(k, self.strategy.run(replica, args=(next(iterator),)))
            return losses.stack()

        return steps

    def _traced_offer(self, accumulator: Accumulator) -> Callable[[Any, Any], Any]:
        tf = need("tensorflow", extra="cloud")
        replica = offered_gradient(self._gradients_of, accumulator, self.counters)

        @tf.function
        def offer(iterator: Any, number: Any) -> Any:
            return self.strategy.run(replica, args=(next(iterator), number))

        return offer

    def _drain(self) -> None:
        """Until no step is under way."""
        began = time.monotonic()
        while not self._coordinator.done():
            self._check_alive(began)
            time.sleep(LOOK_S)
        self._coordinator.join()  # it is done: this raises what a step failed with

    def _check_alive(self, since: float) -> None:
        if time.monotonic() - since > self.hang_timeout_s:
            raise DeviceError(
                f"no worker finished a step for {self.hang_timeout_s:g} s",
                advice="Check the logs of the workers, and start them again.",
            )

    def _check_cluster(self) -> None:
        """Raise what a step failed with, as soon as the coordinator knows."""
        self._coordinator.done()
