"""The model of a training by name: built in, of keras.applications, a .keras file, or a function of the user."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeloop.cloud.input.user_function import function_of
from edgeloop.cloud.train.config import ModelConfig
from edgeloop.errors import ModelError, OptionsError, one_line
from edgeloop.extras import need
from edgeloop.settings import suggestion

# Keras's 0.99 needs some 500 steps before the moving statistics mean anything; the cloud's share of the digits is 9
# steps an epoch, and a model that trained well answered 10% right.
MOMENTUM = 0.9
Shape = tuple[int, ...]


def build_model(config: ModelConfig, shapes: Mapping[str, Shape], outputs: int, classify: bool) -> Any:
    """The Keras model that the config names, for inputs of these shapes (without the batch).

    Args:
        outputs: Units of the last layer: the number of classes, or of numbers to predict.
        classify: Whether the last layer is a softmax.

    Raises:
        OptionsError: No such model, or options it does not take.
        ModelError: It cannot be built for these inputs, or its file cannot be read.
    """
    model = _resolve(config, shapes, outputs, classify)
    if config.weights is not None:
        load_weights(model, config.weights)
    return model


def load_weights(model: Any, path: Path) -> None:
    """Weights of a file into the layers they fit.

    Raises:
        ModelError: The file cannot be read, or fits in no layer.
    """
    try:
        model.load_weights(path, skip_mismatch=True)
    except Exception as e:  # Keras has no class of its own for it
        raise ModelError(
            f"the weights in {path} cannot be loaded ({one_line(e)})",
            advice="Pass weights that the same class of model saved.",
        ) from e


def _resolve(config: ModelConfig, shapes: Mapping[str, Shape], outputs: int, classify: bool) -> Any:
    name = config.name
    if name.endswith(".keras"):
        return open_keras(Path(name))
    if ":" in name:
        given = {"shapes": dict(shapes), "outputs": outputs, "shape": next(iter(shapes.values()))}
        return _built(function_of(name), given, config)
    known = {key.lower(): value for key, value in applications().items()}
    if name in MODELS or name.lower() in known:
        if name == "mlp":
            return _built(MODELS[name], {"shapes": shapes, "outputs": outputs, "classify": classify}, config)
        if len(shapes) != 1:
            raise OptionsError(
                f"the model {name} takes one input, and the data has {', '.join(shapes)}",
                advice="Choose mlp, or name a function of yours that builds a model for them: package.module:function.",
            )
        ((key, shape),) = shapes.items()
        if name in MODELS:
            return _built(MODELS[name], {"shape": shape, "outputs": outputs, "classify": classify, "name": key}, config)
        return _application(known[name.lower()], key, shape, outputs, classify, config)
    raise OptionsError(f"the model {name} is not known", advice=suggestion(name, [*MODELS, *applications()]))


def applications() -> dict[str, Callable[..., Any]]:
    """The classes of keras.applications by name."""
    found = need("keras", extra="cloud").applications
    return {name: value for name, value in vars(found).items() if name[0].isupper() and callable(value)}


def open_keras(path: Path) -> Any:
    """The model of a .keras file, without code of its own.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        return need("keras", extra="cloud").saving.load_model(path, compile=False)
    except Exception as e:  # Keras has no class of its own for it
        raise ModelError(
            f"{path} cannot be loaded ({one_line(e)})", advice="Pass a .keras file of Keras's own layers."
        ) from e


def _built(build: Callable[..., Any], given: Mapping[str, Any], config: ModelConfig) -> Any:
    """What `build` returns, given those of these arguments that it names and the config's options."""
    takes = inspect.signature(build).parameters
    unknown = [key for key in config.options if key not in takes]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        raise OptionsError(
            f"[model.options] {unknown[0]} is not known to {config.name}", advice=suggestion(unknown[0], takes)
        )
    arguments = {key: value for key, value in given.items() if key in takes}
    try:
        return build(**{**arguments, **config.options})
    except (ValueError, TypeError) as e:
        raise ModelError(
            f"the model {config.name} cannot be built for this data ({one_line(e)})",
            advice="Choose a model that fits the shape of the inputs.",
        ) from e


def _application(
    build: Callable[..., Any], key: str, shape: Shape, outputs: int, classify: bool, config: ModelConfig
) -> Any:
    """With `weights`, inputs in 0..1 are brought to the range that the published weights were trained on."""
    given = {
        "input_shape": shape,
        "classes": outputs,
        "weights": None,
        "classifier_activation": "softmax" if classify else None,
    }
    if config.weights is not None:
        own_range = sys.modules[build.__module__].preprocess_input  # of 0..255
        given["input_tensor"] = own_range(need("keras", extra="cloud").Input(shape, name=key) * 255.0)
    return _built(build, given, config)


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
