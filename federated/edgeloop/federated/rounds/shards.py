"""Shards of simulated devices, read and checked before any process starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.bundle import INFERENCE, Bundle, Signature, TensorSpec
from edgeloop.errors import DataError
from edgeloop.federated.device.data.npz import read_shard
from edgeloop.federated.device.data.samples import InputSpec, Samples, check_range
from edgeloop.hashes import digest

SHARD = "shard"  # data that a device trains on


@dataclass(frozen=True)
class CheckedShard:
    """What a shard was when the run began."""

    path: Path
    examples: int
    sha256: str


def check_shards(paths: Sequence[Path], bundle: Bundle, what: str = SHARD) -> tuple[CheckedShard, ...]:
    """Read every file and compare it with the signature of the bundle's inference and its weights.

    Raises:
        DataError: Unreadable, no samples, other names, shapes or dtypes than the model's inputs, NaN, labels out of
            range, or values far outside the range that the manifest states.
    """
    specs = _signature(bundle).inputs
    return tuple(_checked(path, specs, _output(bundle), what) for path in paths)


def check_samples(samples: Samples, bundle: Bundle) -> None:
    """Compare samples, which a simulation will split over its devices, with the trainable variant of the bundle.

    Raises:
        DataError: As `check_shards`.
    """
    ranges = {spec.name: spec.range for spec in _signature(bundle).inputs}
    trained = bundle.manifest.signatures.get("train", Signature((), ())).inputs
    sizes = {spec.name: tuple(size or 1 for size in spec.shape[1:]) for spec in trained}
    specs = {
        spec.name: InputSpec(sizes[spec.name], ranges.get(spec.name), spec.dtype)
        for spec in trained
        if spec.name not in ("y", "lr")
    }
    output = _output(bundle)
    _, y = samples.for_model(specs, output.labels if output else ()) if specs else ({}, samples.y)
    _check_labels(Path(samples.source), y, output)


def _checked(path: Path, specs: Sequence[TensorSpec], output: TensorSpec | None, what: str) -> CheckedShard:
    if not path.is_file():
        raise DataError(f"the {what} {path} does not exist", advice="Expected an .npz file with the inputs and y.")
    names = [spec.name for spec in specs]
    inputs, y = read_shard(path, names or ["x"])
    if specs:
        _check_inputs(path, inputs, specs, len(y))
        if what == SHARD:
            _check_bytes(path, inputs, specs)
    _check_labels(path, y, output)
    return CheckedShard(path, len(y), digest(path))


def _check_inputs(path: Path, inputs: Mapping[str, np.ndarray], specs: Sequence[TensorSpec], n: int) -> None:
    if set(inputs) != {spec.name for spec in specs}:
        raise DataError(
            f"{path} has the inputs {sorted(inputs)}, the model takes {sorted(spec.name for spec in specs)}",
            advice="Rename the arrays.",
        )
    for spec in specs:
        array = inputs[spec.name]
        expected = (n, *spec.shape[1:])
        fits = len(array.shape) == len(expected) and all(
            b is None or a == b for a, b in zip(array.shape, expected, strict=True)
        )
        if not fits:
            shape = [n, *("any" if size is None else size for size in spec.shape[1:])]
            raise DataError(
                f"{path}: {spec.name} has the shape {list(array.shape)}, expected {shape} for {n} labels",
                advice="Give one sample for each label, each as large as the model's input.",
            )
        if not np.can_cast(array.dtype, np.dtype(spec.dtype), "same_kind"):
            raise DataError(
                f"{path}: {spec.name} holds {array.dtype}, the model takes {spec.dtype}", advice="Convert the array."
            )
        check_range(f"{path}: {spec.name}", array, spec.range)


def _check_bytes(path: Path, inputs: Mapping[str, np.ndarray], specs: Sequence[TensorSpec]) -> None:
    """Bytes for a model of floats, whose range nobody knows, would more likely than not destroy it."""
    for spec in specs:
        array = inputs[spec.name]
        if spec.range is None and array.dtype == np.uint8 and np.dtype(spec.dtype).kind == "f" and array.max() > 1:
            raise DataError(
                f"{path}: {spec.name} holds bytes up to {array.max()}, and the bundle does not say which values the "
                "model takes",
                advice="Store float32 values as the model was trained on, or convert with --calibration, which states "
                "the range.",
            )


def _check_labels(path: Path, y: np.ndarray, output: TensorSpec | None) -> None:
    if output is None or not output.shape or y.dtype.kind == "f" or y.ndim != len(output.shape) - 1:
        return  # numbers, or yes and no for each unit
    classes = output.shape[-1]
    if classes is not None and classes > 1 and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise DataError(
            f"{path}: labels run from {y.min()} to {y.max()}; the model has the classes 0 to {classes - 1}",
            advice="Number the classes from 0, as the model does.",
        )


def _signature(bundle: Bundle) -> Signature:
    """Empty where the bundle names no signature of inference."""
    named = [bundle.manifest.signatures[name] for name in INFERENCE if name in bundle.manifest.signatures]
    return named[0] if named else Signature((), ())


def _output(bundle: Bundle) -> TensorSpec | None:
    outputs = _signature(bundle).outputs
    return outputs[0] if len(outputs) == 1 else None
