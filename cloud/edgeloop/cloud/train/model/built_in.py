"""Small models that need no file: convolutions for images, dense layers for anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeloop.extras import need

# Keras's 0.99 needs some 500 steps before the moving statistics mean anything; the cloud's share of the digits is 9
# steps an epoch, and a model that trained well answered 10% right.
MOMENTUM = 0.9

Shape = tuple[int, ...]


def small_cnn(shape: Shape, outputs: int, classify: bool = True, name: str = "image") -> Any:
    """Convolution, batch norm, depthwise separable block, pooling, dense: [n, *shape] in 0..1 to [n, outputs]."""
    keras = need("keras", extra="cloud")
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape, name=name),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv"),
            layers.BatchNormalization(momentum=MOMENTUM, name="conv_norm"),
            layers.ReLU(name="conv_relu"),
            layers.MaxPooling2D(2, name="pool"),
            layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise"),
            layers.Conv2D(32, 1, use_bias=False, name="pointwise"),
            layers.BatchNormalization(momentum=MOMENTUM, name="pointwise_norm"),
            layers.ReLU(name="pointwise_relu"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name="hidden"),
            _last(outputs, classify),
        ],
        name="small_cnn",
    )


def mcmahan_cnn(shape: Shape, outputs: int, classify: bool = True, name: str = "image") -> Any:
    """The CNN of McMahan et al. 2017 (arXiv 1602.05629, section 3): 1,663,370 weights for 28x28 images, 10 classes."""
    keras = need("keras", extra="cloud")
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape, name=name),
            layers.Conv2D(32, 5, padding="same", activation="relu", name="conv"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Conv2D(64, 5, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Flatten(name="flatten"),
            layers.Dense(512, activation="relu", name="hidden"),
            _last(outputs, classify),
        ],
        name="mcmahan_cnn",
    )


def multilayer_perceptron(
    shapes: Mapping[str, Shape], outputs: int, classify: bool = True, hidden: int | list[int] = 64
) -> Any:
    """Dense layers of `hidden` units with ReLU over all inputs, flattened and joined."""
    keras = need("keras", extra="cloud")
    units = [hidden] if isinstance(hidden, int) else hidden
    middle = [keras.layers.Dense(n, activation="relu", name=f"hidden_{k}") for k, n in enumerate(units)]
    inputs = [keras.Input(shape, name=name) for name, shape in shapes.items()]
    flat = [
        tensor if len(tensor.shape) == 2 else keras.layers.Reshape((-1,), name=f"flat_{tensor.name}")(tensor)
        for tensor in inputs
    ]
    found = flat[0] if len(flat) == 1 else keras.layers.Concatenate(name="all")(flat)
    for layer in (*middle, _last(outputs, classify)):
        found = layer(found)
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], found, name="mlp")


def _last(outputs: int, classify: bool) -> Any:
    dense = need("keras", extra="cloud").layers.Dense
    return dense(outputs, activation="softmax", name="probabilities") if classify else dense(outputs, name="numbers")


MODELS: dict[str, Callable[..., Any]] = {
    "small-cnn": small_cnn,
    "mcmahan-cnn": mcmahan_cnn,
    "mlp": multilayer_perceptron,
}
