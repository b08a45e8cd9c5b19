"""Weights to begin from: those of a bundle, a run, a .keras file, or what federated rounds averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import MANIFEST, TRAINABLE, read_bundle
from edgeloop.cloud.train.model.models import open_keras
from edgeloop.cloud.train.run.run_folder import MODEL
from edgeloop.errors import ModelError
from edgeloop.runtime.device import parse_device
from edgeloop.runtime.initial_weights import initial_weights

KINDS = "Pass a bundle, a run folder, a .keras file, or a .npz file of federated rounds."


def warm_start(model: Any, source: Path | Mapping[str, np.ndarray]) -> str:
    """Give `model` the weights of `source`, before or after it is put under a strategy.

    A bundle, a .npz file or a mapping holds weights in the order of `get_weights`, and all must fit. Of a .keras file
    or a run the arrays go to the layers of the same name and shape, so that another last layer keeps its own.

    Args:
        model: A Keras model that is built.
        source: A bundle with a trainable variant, a run folder, a .keras file, the `round-N.npz` of federated rounds,
            or their weights by name: w000, w001, ..., in the order of these names.

    Returns:
        One sentence on what was taken.

    Raises:
        ModelError: `source` is none of these, or its weights do not fit the model.
        IntegrityError: A file of the bundle is damaged.
        TargetError, DeviceError: No runtime here reads the weights of the bundle.

    Example:
        >>> warm_start(model, Path("rounds/round-3.npz"))
        'Training starts from all 8 arrays of weights of rounds/round-3.npz.'
    """
    if isinstance(source, Mapping):
        return _set_all(model, [source[name] for name in sorted_by_number(source)], "the averaged weights")
    if (source / MANIFEST).is_file():
        return _set_all(model, _of_bundle(source), str(source))
    if (source / MODEL).is_file():
        return _set_by_name(model, source / MODEL)
    if source.suffix == ".keras" and source.is_file():
        return _set_by_name(model, source)
    if source.suffix == ".npz" and source.is_file():
        return _set_all(model, _of_npz(source), str(source))
    raise ModelError(f"{source} holds no weights to start from", advice=KINDS)


def sorted_by_number(names: Iterable[str]) -> list[str]:
    """w000, w001, ..., w999, w1000, and arr_0, ..., arr_9, arr_10: numbers grow a digit where the first ones end."""
    return sorted(names, key=lambda name: (len(name), name))


def _of_bundle(folder: Path) -> list[np.ndarray]:
    bundle = read_bundle(folder)
    variants = {variant.id: variant for variant in bundle.manifest.variants}
    if TRAINABLE not in variants:
        raise ModelError(
            f"{folder} has no trainable variant, whose weights can be read",
            advice="Convert the model with --trainable, or start from its .keras file.",
        )
    found = initial_weights(bundle.file(variants[TRAINABLE].entry), parse_device("local"))
    return [found[weight.name] for weight in bundle.manifest.weights]


def _of_npz(path: Path) -> list[np.ndarray]:
    """Arrays in the order of their names."""
    try:
        with np.load(path) as packed:
            return [packed[name] for name in sorted_by_number(packed.files)]
    except (OSError, ValueError) as e:
        raise ModelError(f"{path} cannot be read as .npz ({e})", advice=KINDS) from e


def _set_all(model: Any, arrays: Sequence[np.ndarray], source: str) -> str:
    own = [tuple(weight.shape) for weight in model.weights]
    given = [array.shape for array in arrays]
    if own != given:
        places = [k for k, (a, b) in enumerate(zip(own, given, strict=False)) if a != b]
        what = (
            f"weight {places[0]} ({model.weights[places[0]].path}) has the shape {given[places[0]]}, and the model's "
            f"has {own[places[0]]}"
            if places
            else f"{len(given)} arrays, and the model has {len(own)}"
        )
        raise ModelError(f"{source}: {what}", advice="Start from weights of the same model.")
    model.set_weights(list(arrays))
    return f"Training starts from all {len(own)} arrays of weights of {source}."


def _set_by_name(model: Any, path: Path) -> str:
    loaded = open_keras(path)
    if [tuple(weight.shape) for weight in loaded.weights] == [tuple(weight.shape) for weight in model.weights]:
        return _set_all(model, loaded.get_weights(), str(path))
    named = {weight.path: weight for weight in loaded.weights}
    fitting = [w for w in model.weights if w.path in named and named[w.path].shape == w.shape]
    if not fitting:
        raise ModelError(
            f"no array of weights of {path} has the name and shape of one of the model",
            advice="Start from a model whose layers have the same names.",
        )
    for weight in fitting:
        weight.assign(named[weight.path].numpy())
    return f"Training starts from {len(fitting)} of {len(model.weights)} arrays of weights of {path}."
