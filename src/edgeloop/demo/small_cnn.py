"""The demo's model: small, and of the layers phones and boards see most."""

from __future__ import annotations

from typing import Any

from edgeloop.extras import need

# Keras's 0.99 needs some 500 steps before the moving statistics mean anything; the cloud's share of the digits is 9
# steps an epoch, and a model that trained well answered 10% right.
MOMENTUM = 0.9


def small_cnn(image: tuple[int, int, int], classes: int, seed: int) -> Any:
    """Convolution, batch norm, depthwise separable block, pooling, dense: [n, *image] in 0..1 to [n, classes]."""
    keras = need("keras", extra="cloud")
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(image, name="image"),
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
            layers.Dense(classes, activation="softmax", name="probabilities"),
        ],
        name="small_cnn",
    )
