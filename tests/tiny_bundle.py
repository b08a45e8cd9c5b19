"""A bundle whose only variant is a trainable model of 27 numbers, for tests that train on many devices."""

from pathlib import Path

import pytest

from edgeloop.bundle import Format, Manifest, Scheme, Signature, Variant, file_entries
from edgeloop.runtime.agent.trainer import SIGNATURES

FEATURES, CLASSES = 8, 3


def write_tiny_bundle(folder: Path, batch: int) -> Path:
    """The bundle of one dense layer in an empty folder; its input is `features`."""
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((FEATURES,), name="features"), keras.layers.Dense(CLASSES)])
    entry = "trainable.tflite"
    (folder / entry).write_bytes(to_trainable(model, TrainableOptions(batch=batch)))
    variant = Variant("trainable", entry, (entry,), Format.TFLITE, Scheme.FLOAT32, SIGNATURES)
    manifest = Manifest(
        "tiny", 1, {}, file_entries(folder), {name: Signature((), ()) for name in SIGNATURES}, (variant,)
    )
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return folder
