"""The model of a training by name: built in, of keras.applications, a .keras file, or a function of the user."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeloop.cloud.input.user_function import function_of
from edgeloop.cloud.train.config.tables import ModelConfig
from edgeloop.cloud.train.model.built_in import MODELS, Shape
from edgeloop.errors import ModelError, OptionsError, one_line
from edgeloop.extras import need
from edgeloop.settings import suggestion


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
