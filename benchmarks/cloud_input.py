"""The input of the cloud trainer, on 4,000 PNGs made for it: cached batches against arrays in memory, and what
`edgeloop doctor` chooses against the naive pipeline.

    python benchmarks/cloud_input.py        writes benchmarks/results.json

All pipelines feed one training step (a perceptron, so that the input is what costs) in short runs that take turns. A
figure is the ratio of two pipelines' examples per second: median and quartiles over pairs.

memory   `cache = "memory"` over tf.data's own way: Dataset.from_tensor_slices(arrays).shuffle(all).batch.prefetch
doctor   the pipeline that the doctor chose over the naive one (no parallelism, no prefetch, one example at a time)
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
RESULTS = Path(__file__).with_name("results.json")
IMAGES, SIDE, CLASSES, BATCH = 4000, 32, 10, 64
PAIRS, SECONDS, DOCTOR_S = 15, 0.5, 90.0


def write_images(folder: Path) -> None:
    """4,000 PNGs of 32x32 pixels: a colour for each class, and noise."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    for k in range(IMAGES):
        label = k % CLASSES
        image = rng.integers(0, 40, (SIDE, SIDE, 3)) + np.array([20 * label, 200 - 20 * label, 100])
        file = folder / f"class{label}" / f"{k:04d}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(tf.io.encode_png(image.astype(np.uint8)).numpy())


def in_memory(examples: Any) -> Any:
    """The same examples as tf.data takes arrays: the ceiling."""
    import numpy as np
    import tensorflow as tf

    from edgeloop.cloud.input.options import PipelineOptions
    from edgeloop.cloud.input.pipeline import evaluation_batches

    pieces = list(evaluation_batches(examples, PipelineOptions(batch=256)))
    x, y = (np.concatenate([piece[k].numpy() for piece in pieces]) for k in range(2))
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y), seed=0).repeat()
    return dataset.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    import tensorflow as tf

    from edgeloop.cloud.commands.doctor import difference, examine, subject_of
    from edgeloop.cloud.input.cache import cached
    from edgeloop.cloud.input.doctor.measure import both, rate, read_only
    from edgeloop.cloud.input.doctor.trial import Gain, in_turns
    from edgeloop.cloud.input.options import Cache, PipelineOptions
    from edgeloop.cloud.train.config.tables import ModelConfig
    from edgeloop.cloud.train.config.train_config import TrainConfig
    from edgeloop.cloud.train.data.data_config import DataConfig

    naive = PipelineOptions(batch=BATCH, parallel_map=1, parallel_reads=1, prefetch=0, vectorised_map=False)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        config = TrainConfig(data=DataConfig(path=Path(folder)), pipeline=naive, model=ModelConfig(name="mlp"))
        found, prepared = examine(config, DOCTOR_S, lambda what, done, total: None)
        subject = subject_of(prepared, SECONDS)
        plain = PipelineOptions(batch=BATCH)
        kept = cached(prepared.training, PipelineOptions(batch=BATCH, cache=Cache.MEMORY))
        ceiling = in_memory(prepared.training)

        def of(dataset: Any, take_steps: Callable) -> Callable[[], float]:
            return lambda: BATCH / rate(dataset, take_steps, SECONDS).batch_s

        from edgeloop.cloud.input.pipeline import batches

        def memory(take_steps: Callable) -> Gain:
            return in_turns(of(ceiling, take_steps), of(batches(kept, plain), take_steps), PAIRS)

        chosen = PipelineOptions(**{**asdict(found.options), "cache": Cache.NONE})
        examples = kept if found.options.cache is Cache.MEMORY else prepared.training
        doctor = in_turns(both(subject, prepared.training, naive), both(subject, examples, chosen), PAIRS)
        result = {
            "what": f"{IMAGES} PNGs of {SIDE}x{SIDE}, batch {BATCH}, a perceptron; examples/s over examples/s",
            "host": {"machine": platform.machine(), "python": platform.python_version(), "tensorflow": tf.__version__},
            "memory_over_slices": memory(subject.take_steps).to_json(),
            "memory_over_slices_input_alone": memory(read_only).to_json(),
            "doctor_over_naive": doctor.to_json(),
            "doctor_changes": {name: str(value) for name, value in difference(naive, found.options).items()},
            "doctor_bound": found.verdict.bound.value,
        }
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results["cloud_input"] = result
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
