"""A small net for each layer and operation of docs/formats.md. The names need no framework; the nets need Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {"image": (12, 12, 3), "series": (10, 6), "video": (4, 6, 6, 2), "ids": (8,)}
POOLS = {
    "image": "GlobalAveragePooling2D",
    "series": "GlobalAveragePooling1D",
    "video": "GlobalAveragePooling3D",
    "ids": "GlobalAveragePooling1D",
}
WORDS = 20  # ids are 0 to 19
SAMPLES = 64

# `L` is keras.layers. A layer of an image follows a convolution, as it does in most nets.
IMAGE = {
    "Conv2D": lambda L: L.Conv2D(5, 3, activation="relu"),
    "Conv2D, groups=2": lambda L: L.Conv2D(6, 3, groups=2),
    "DepthwiseConv2D": lambda L: L.DepthwiseConv2D(3),
    "SeparableConv2D": lambda L: L.SeparableConv2D(5, 3),
    "Conv2DTranspose": lambda L: L.Conv2DTranspose(5, 3, strides=2, padding="same"),
    "MaxPooling2D": lambda L: L.MaxPooling2D(2),
    "AveragePooling2D": lambda L: L.AveragePooling2D(2),
    "UpSampling2D, nearest": lambda L: L.UpSampling2D(),
    "UpSampling2D, bilinear": lambda L: L.UpSampling2D(interpolation="bilinear"),
    "ZeroPadding2D": lambda L: L.ZeroPadding2D(1),
    "Resizing": lambda L: L.Resizing(6, 6),
    "Rescaling": lambda L: L.Rescaling(1 / 127.5, offset=-1),
    "BatchNormalization": lambda L: L.BatchNormalization(),
    "LayerNormalization": lambda L: L.LayerNormalization(),
    "GroupNormalization": lambda L: L.GroupNormalization(2),
    "ReLU": lambda L: L.ReLU(),
    "LeakyReLU": lambda L: L.LeakyReLU(),
    "PReLU": lambda L: L.PReLU(shared_axes=[1, 2]),
    "Activation, elu": lambda L: L.Activation("elu"),
    "Activation, gelu": lambda L: L.Activation("gelu"),
    "Activation, hard_silu": lambda L: L.Activation("hard_silu"),
    "Activation, selu": lambda L: L.Activation("selu"),
    "Activation, sigmoid": lambda L: L.Activation("sigmoid"),
    "Activation, silu": lambda L: L.Activation("silu"),
    "Activation, softplus": lambda L: L.Activation("softplus"),
    "Activation, tanh": lambda L: L.Activation("tanh"),
}
FLAT = {"Dense": lambda L: L.Dense(6, activation="relu")}
AT_THE_END = {"Softmax, as the output": lambda L: L.Softmax()}  # of many classes, each share is below int8's step
SERIES = {
    "Conv1D": lambda L: L.Conv1D(5, 3),
    "Conv1DTranspose": lambda L: L.Conv1DTranspose(5, 3, strides=2),
    "MaxPooling1D": lambda L: L.MaxPooling1D(2),
    "Dense, on a sequence": lambda L: L.Dense(5),
    "TimeDistributed Dense": lambda L: L.TimeDistributed(L.Dense(5)),
    "MultiHeadAttention": lambda L: lambda x: L.MultiHeadAttention(2, 4)(x, x),
    "LSTM": lambda L: L.LSTM(5, return_sequences=True),
    "LSTM, unroll=True": lambda L: L.LSTM(5, return_sequences=True, unroll=True),
    "GRU": lambda L: L.GRU(5, return_sequences=True),
    "SimpleRNN": lambda L: L.SimpleRNN(5, return_sequences=True),
    "Bidirectional LSTM": lambda L: L.Bidirectional(L.LSTM(4, return_sequences=True)),
}
SERIES_OF_ONE = {
    "LSTM, batch_size=1": lambda L: L.LSTM(5, return_sequences=True),
    "GRU, batch_size=1": lambda L: L.GRU(5, return_sequences=True),
}
VIDEO = {
    "Conv3D": lambda L: L.Conv3D(4, 2),
    "ConvLSTM2D": lambda L: L.ConvLSTM2D(3, 2, return_sequences=True),
}
IDS = {"Embedding": lambda L: L.Embedding(WORDS, 6)}
# `ops` is keras.ops; `x` and `y` are the outputs of two convolutions, 12 x 12 of 4 channels
OPS = {
    "ops.add": lambda ops, x, y: ops.add(x, y),
    "ops.multiply, by a constant": lambda ops, x, y: ops.multiply(x, 3.0),
    "ops.concatenate": lambda ops, x, y: ops.concatenate([x, y], axis=-1),
    "ops.maximum": lambda ops, x, y: ops.maximum(x, y),
    "ops.minimum": lambda ops, x, y: ops.minimum(x, y),
    "ops.negative": lambda ops, x, y: ops.negative(x),
    "ops.abs": lambda ops, x, y: ops.abs(y),
    "ops.split": lambda ops, x, y: ops.add(*ops.split(x, 2, axis=-1)),
    "slice, x[:, ::2, 1:]": lambda ops, x, y: x[:, ::2, 1:],
    "ops.transpose": lambda ops, x, y: ops.transpose(x, (0, 2, 1, 3)),
    "ops.matmul, of two tensors": lambda ops, x, y: ops.matmul(x, ops.reshape(y, (-1, 12, 4, 12))),
}
OPS_ON_IDS = {"ops.one_hot": lambda ops, x, y: ops.one_hot(x, WORDS)}
OPS_AT_THE_END = {"ops.argmax, as the output": lambda ops, x, y: ops.argmax(x, axis=-1)}


@dataclass(frozen=True)
class LayerNet:
    """A row of the table.

    Attributes:
        kind: Of the input: a key of SHAPES.
        middle: `(keras.layers, x)` -> what stands between the input and the mean over all positions.
        end: `(keras.layers, x)` -> what follows the last Dense.
        batch: Of the Input; None: free.
    """

    name: str
    kind: str
    middle: Callable[[Any, Any], Any]
    end: Callable[[Any, Any], Any] = lambda L, x: x
    batch: int | None = None

    def save(self, folder: Path) -> Path:
        """Write the net with random weights as `folder`/model.keras."""
        import keras
        from keras import layers as L

        keras.utils.set_random_seed(7)
        dtype = "int32" if self.kind == "ids" else "float32"
        x = inputs = keras.Input(SHAPES[self.kind], self.batch, dtype, name="x")
        x = self.middle(L, x)
        if len(x.shape) > 2:
            x = getattr(L, POOLS[self.kind])()(x)
        keras.Model(inputs, self.end(L, L.Dense(3)(x))).save(folder / "model.keras")
        return folder / "model.keras"

    def save_inputs(self, folder: Path) -> Path:
        """Write SAMPLES inputs, of unit variance or any ids, as `folder`/inputs.npz."""
        rng, shape = np.random.default_rng(3), (SAMPLES, *SHAPES[self.kind])
        ids = self.kind == "ids"
        x = rng.integers(0, WORDS, shape).astype(np.int32) if ids else rng.normal(size=shape).astype(np.float32)
        np.savez(folder / "inputs.npz", x=x)
        return folder / "inputs.npz"


def layer_nets() -> list[LayerNet]:
    """Every row of the table, in its order."""
    return [
        *(LayerNet(name, "image", lambda L, x, f=f: f(L)(_conv(L, x))) for name, f in IMAGE.items()),
        *(LayerNet(name, "image", lambda L, x, f=f: f(L)(L.Flatten()(_conv(L, x)))) for name, f in FLAT.items()),
        *(LayerNet(name, "image", _conv, lambda L, x, f=f: f(L)(x)) for name, f in AT_THE_END.items()),
        *(LayerNet(name, "series", lambda L, x, f=f: f(L)(x)) for name, f in SERIES.items()),
        *(LayerNet(name, "series", lambda L, x, f=f: f(L)(x), batch=1) for name, f in SERIES_OF_ONE.items()),
        *(LayerNet(name, "video", lambda L, x, f=f: f(L)(x)) for name, f in VIDEO.items()),
        *(LayerNet(name, "ids", lambda L, x, f=f: f(L)(x)) for name, f in IDS.items()),
        *(LayerNet(name, "image", lambda L, x, f=f: _of_two_convolutions(f, L, x)) for name, f in OPS.items()),
        *(LayerNet(name, "ids", lambda L, x, f=f: _of(f, x)) for name, f in OPS_ON_IDS.items()),
        *(LayerNet(name, "image", _conv, lambda L, x, f=f: _of(f, x)) for name, f in OPS_AT_THE_END.items()),
    ]


def _conv(L: Any, x: Any) -> Any:
    return L.Conv2D(4, 3, padding="same", activation="relu")(x)


def _of_two_convolutions(f: Callable, L: Any, x: Any) -> Any:
    from keras import ops

    x = _conv(L, x)
    return f(ops, x, L.Conv2D(4, 3, padding="same")(x))


def _of(f: Callable, x: Any) -> Any:
    from keras import ops

    return f(ops, x, None)
