"""The cloud's part of the demo: a model of its own share, the ceiling of all data, and fine-tuning after federation."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from edgeloop.cloud.train.model.built_in import small_cnn
from edgeloop.cloud.train.run.run_folder import save_keras
from edgeloop.cloud.train.train_arrays import TrainOptions, accuracy, copy_of, train
from edgeloop.demo.data import Dataset, Split
from edgeloop.demo.state import DemoRun
from edgeloop.extras import need


def train_in_cloud(run: DemoRun, parts: Split) -> tuple[float, float, Any]:
    """Test accuracy of a model trained on the cloud's share, that of one trained on all data, and the former model."""
    everything = Dataset(
        name=parts.cloud.name,
        x=np.concatenate([parts.cloud.x, parts.devices.x]),
        y=np.concatenate([parts.cloud.y, parts.devices.y]),
    )
    image, classes = parts.cloud.x.shape[1:], everything.classes
    accuracies, models = [], []
    for name, share in (("cloud", parts.cloud), ("central", everything)):
        trained = train(
            partial(_seeded_cnn, image, classes, run.seed),
            share.x,
            share.y,
            train_options(len(share.y), run.seed),
            run.progress,
            f"train on {name} data",
        )
        accuracies.append(accuracy(trained.model, parts.test.x, parts.test.y))
        models.append(trained.model)
        save_keras(trained.model, run.out / "models" / f"{name}.keras")
    run.say(
        f"1 cloud      {trained.strategy}: {accuracies[0]:.1%} accuracy, trained on the {len(parts.cloud.y):,} images "
        f"of the cloud; {accuracies[1]:.1%} if trained on all {len(everything.y):,} images"
    )
    return accuracies[0], accuracies[1], models[0]


def _seeded_cnn(image: tuple[int, ...], classes: int, seed: int) -> Any:
    need("keras", extra="cloud").utils.set_random_seed(seed)
    return small_cnn(image, classes)


def fine_tune(run: DemoRun, model: Any, parts: Split) -> Any:
    """A copy of `model`, trained further on the cloud's share with a twentieth of the learning rate."""
    options = train_options(len(parts.cloud.y), run.seed, learning_rate=1e-4)
    cloud = parts.cloud
    return train(lambda: copy_of(model), cloud.x, cloud.y, options, run.progress, "fine-tune in the cloud").model


def train_options(samples: int, seed: int, learning_rate: float = 2e-3) -> TrainOptions:
    """Small data gets small batches and many passes, large data the reverse: 57k images in 6 passes, 179 in 60."""
    epochs = max(6, min(60, 60_000 // samples))
    return TrainOptions(
        epochs=epochs,
        batch=min(128, max(16, samples // 60)),
        patience=max(2, epochs // 6),
        learning_rate=learning_rate,
        seed=seed,
    )
