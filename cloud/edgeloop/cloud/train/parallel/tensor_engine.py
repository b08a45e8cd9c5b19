"""The engine of `[strategy] name = "tensor-split"`: each device holds a part of every wide layer."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from edgeloop.cloud.train.engine import Setup
from edgeloop.cloud.train.model.fitting import fitting_model
from edgeloop.cloud.train.parallel.tensor_split import Mesh, wide_layers
from edgeloop.cloud.train.parallel.whole_engine import WholeEngine
from edgeloop.cloud.train.parallel.whole_values import slot_pairs, slots_by_weight
from edgeloop.cloud.train.step.evaluation import evaluation
from edgeloop.cloud.train.step.loop import StepFigures, Stopped, Told
from edgeloop.cloud.train.step.step import gradients_of
from edgeloop.errors import OptionsError
from edgeloop.extras import need


class TensorEngine(WholeEngine):
    """See `Engine`."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        tf = need("tensorflow", extra="cloud")
        devices = setup.place.devices
        if len(devices) < 2:
            raise OptionsError(
                f"the strategy tensor-split needs two devices or more, and this machine has {devices[0]}",
                advice="Set [strategy] virtual-cpus = 2 to try it on the CPU.",
            )
        self._mesh = Mesh(devices)
        self._model = fitting_model(setup.config, setup.training)
        wide = wide_layers(self._model, len(devices))
        if not wide:
            raise OptionsError(
                f"no layer of {self._model.name} can be split over {len(devices)} devices",
                advice=f"Give a Dense layer or an Embedding a multiple of {len(devices)} units, or choose pipeline.",
            )
        optimizer = self.optimizer()
        self._pairs, self._layouts = self._placed(wide, optimizer)
        self.spread()
        gradients = gradients_of(self._model, optimizer, setup.objective, setup.config.memory, setup.batch)

        def dense(item: Any) -> tuple[Any, list[Any]]:
            loss, found = gradients(item)
            return loss, [one if one is None else tf.convert_to_tensor(one) for one in found]  # not IndexedSlices

        self._gradients, self._optimizer = tf.function(dense), optimizer
        self._evaluate = evaluation(setup.strategy, setup.model, setup.objective)  # `collect` was called before
        self.plan: tuple[str, ...] = (_plan(self._model, wide, len(devices)),)

    def _placed(self, wide: list[Any], optimizer: Any) -> tuple[list[tuple[Any, Any]], list[Any]]:
        """Build the optimizer and put all variables on the devices. (variable of the whole, that of the devices), and
        the layout of each: what an optimizer keeps of a weight lies as the weight does."""
        weights, whole = self._model.trainable_variables, self._mesh.whole
        pairs = list(zip(self.setup.model.variables, self._model.variables, strict=True))
        split = {id(variable) for layer in wide for variable in layer.variables}
        for variable in self._model.variables:
            rank = len(variable.shape)
            self._mesh.put(variable, self._mesh.split(rank) if id(variable) in split else whole(rank))
        optimizer.build(weights)  # not before: it knows a weight by the variable that lies behind it
        for weight, kept in zip(weights, slots_by_weight(optimizer), strict=False):
            split |= {id(slot) for slot in kept if id(weight) in split and slot.shape == weight.shape}
        for slot in optimizer.variables:
            rank = len(slot.shape)
            self._mesh.put(slot, self._mesh.split(rank) if id(slot) in split else whole(rank))
        pairs += slot_pairs(self.setup.optimizer, optimizer, range(len(weights)))
        ranks = [(len(part.shape), id(part) in split) for _, part in pairs]
        return pairs, [self._mesh.split(rank) if parted else whole(rank) for rank, parted in ranks]

    def run(self, iterator: Any, count: int, epoch: int, told: Told, stop: Stopped) -> StepFigures:
        tf = need("tensorflow", extra="cloud")
        began, waited, losses = time.perf_counter(), 0.0, list[float]()
        while len(losses) < count:
            asked = time.perf_counter()
            item = next(iterator)
            waited += time.perf_counter() - asked
            loss, gradients = self._gradients(tf.nest.map_structure(self._mesh.copied, item))
            # not in the traced function: DTensor lets Adam read there what it has not yet written (TensorFlow 2.21)
            self._optimizer.apply_gradients(zip(gradients, self._model.trainable_variables, strict=True))
            losses.append(float(loss))
            told(len(losses), losses[-1])
            if not np.isfinite(losses[-1]) or stop(len(losses)):
                break
        return StepFigures(losses=np.array(losses, np.float32), seconds=time.perf_counter() - began, waited_s=waited)

    def collect(self) -> None:
        for whole, part in self._pairs:
            whole.assign(self._mesh.read(part))

    def spread(self) -> None:
        for (whole, part), layout in zip(self._pairs, self._layouts, strict=True):
            part.value.assign(self._mesh.placed(whole.numpy(), layout))

    def notes(self) -> tuple[str, ...]:
        return ()


def _plan(model: Any, wide: list[Any], devices: int) -> str:
    parts = sum(math.prod(variable.shape) for layer in wide for variable in layer.variables)
    share = parts / sum(math.prod(variable.shape) for variable in model.variables)
    names = ", ".join(layer.name for layer in wide)
    return f"Split over {devices} devices: {names} ({share:.0%} of all weights)."
