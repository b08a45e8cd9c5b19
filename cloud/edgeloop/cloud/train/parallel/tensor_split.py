"""Variables that are split over several devices by TensorFlow's DTensor: wide Dense layers and embeddings.

Keras 3 knows nothing of DTensor, but its layers compute with whatever lies behind their variables: a `DVariable` in the
place of a `tf.Variable` gave the same gradients bit by bit, and Keras's optimizers update it.
Source: https://www.tensorflow.org/guide/dtensor_overview
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeloop.extras import need

AXIS = "model"  # of the mesh


class Mesh:
    """The devices that hold a part each of what is split, and a copy each of all else."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.dtensor = need("tensorflow.experimental.dtensor", extra="cloud")
        if not devices[0].startswith("CPU"):
            self.dtensor.initialize_accelerator_system(devices[0].partition(":")[0])
        self.count = len(devices)
        self._mesh = self.dtensor.create_mesh([(AXIS, self.count)], devices=list(devices))

    def whole(self, rank: int) -> Any:
        """The layout of what every device has a copy of."""
        return self.dtensor.Layout.replicated(self._mesh, rank=rank)

    def split(self, rank: int) -> Any:
        """The layout of what is split along its last axis."""
        return self.dtensor.Layout([self.dtensor.UNSHARDED] * (rank - 1) + [AXIS], self._mesh)

    def copied(self, tensor: Any) -> Any:
        """A tensor of this process, copied to every device."""
        return self.dtensor.copy_to_mesh(tensor, self.whole(tensor.shape.rank))

    def placed(self, value: Any, layout: Any) -> Any:
        """A value of this process in that layout."""
        tf = need("tensorflow", extra="cloud")
        return self.dtensor.relayout(self.copied(tf.convert_to_tensor(value)), layout)

    def read(self, variable: Any) -> np.ndarray:
        """The whole value of a variable, in this process."""
        tf = need("tensorflow", extra="cloud")
        value = tf.convert_to_tensor(variable.value)
        return np.asarray(self.dtensor.relayout(value, self.whole(value.shape.rank)).numpy())

    def put(self, variable: Any, layout: Any) -> None:
        """Let a variable of Keras lie on the devices, with the value that it has."""
        variable._value = self.dtensor.DVariable(self.placed(variable.numpy(), layout))


def wide_layers(model: Any, parts: int) -> list[Any]:
    """The layers whose weights are split: Dense and Embedding whose last axis has a multiple of `parts` entries, but
    the layers that end the model."""
    keras = need("keras", extra="cloud")
    last = {id(tensor._keras_history.operation) for tensor in model.outputs}
    widths = {keras.layers.Dense: "units", keras.layers.Embedding: "output_dim"}
    return [
        layer
        for layer in model._flatten_layers(include_self=False)
        if type(layer) in widths and id(layer) not in last and getattr(layer, widths[type(layer)]) % parts == 0
    ]
