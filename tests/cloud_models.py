"""Small models that tests of training name as `cloud_models:FUNCTION`."""

from __future__ import annotations

from typing import Any


def normalized(shape: tuple[int, ...], outputs: int) -> Any:
    """Statistics that move beside the weights, and a random layer whose state a checkpoint has to hold."""
    import keras

    return keras.Sequential(
        [
            keras.Input(shape, name="x"),
            keras.layers.Dense(16),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.1, seed=1),
            keras.layers.Dense(outputs, activation="softmax"),
        ]
    )


def doubled(shape: tuple[int, ...], outputs: int) -> Any:
    """With code that Keras saves and does not load."""
    import keras

    twice = keras.layers.Lambda(lambda x: 2 * x)
    return keras.Sequential([keras.Input(shape, name="x"), twice, keras.layers.Dense(outputs, activation="softmax")])


def embedded(shape: tuple[int, ...], outputs: int) -> Any:
    """A table of 9,000 rows, 288 kB: two parts on two parameter servers."""
    import keras

    from edgeloop.cloud.train.servers.partitioned import embedding_class

    rows = keras.Input(shape, dtype="int32", name="x")
    found = keras.layers.Flatten()(embedding_class()(9000, 8)(rows))
    return keras.Model(rows, keras.layers.Dense(outputs, activation="softmax")(found))


def bursting(shape: tuple[int, ...], outputs: int) -> Any:
    """exp(w x) with w = 0 at first."""
    import keras

    zero = {"use_bias": False, "kernel_initializer": "zeros"}
    burst = keras.layers.Dense(1, "exponential", name="burst", **zero)
    return keras.Sequential([keras.Input(shape, name="x"), keras.layers.Flatten(), burst])


def rooted(shape: tuple[int, ...], outputs: int) -> Any:
    """sqrt(w x) with w = 0 at first: the root is 0, its slope infinite."""
    import keras

    dense = keras.layers.Dense(1, keras.ops.sqrt, use_bias=False, kernel_initializer="zeros", name="root")
    return keras.Sequential([keras.Input(shape, name="x"), dense])


def two_inputs(shapes: dict[str, tuple[int, ...]], outputs: int) -> Any:
    """Two branches that are joined, named in another order than that of their names."""
    import keras

    right, left = (keras.Input(shapes[name], name=name) for name in ("right", "left"))
    joined = [keras.layers.Dense(8, activation="relu")(one) for one in (right, left)]
    return keras.Model([right, left], keras.layers.Dense(outputs)(keras.layers.Concatenate()(joined)))


EPOCHS_SEEN = []


def remember(record: Any, model: Any) -> None:
    """A callback."""
    EPOCHS_SEEN.append((record.epoch, len(model.get_weights())))
