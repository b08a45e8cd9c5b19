"""The input of the cloud trainer, on 4,000 PNGs made for it: cached batches against arrays in memory, and what
`edgeloop doctor` chooses against the naive pipeline.

    python benchmarks/cloud_input.py        writes benchmarks/results.json

All pipelines feed one training step (a perceptron, so that the input is what costs) in short runs that take turns: old,
new, new, old. A figure is the ratio of two pipelines' examples per second of elapsed time (`wall`) and of processor
time (`cpu`, which others on the machine disturb less): median and quartiles over pairs.

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
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
RESULTS = Path(__file__).with_name("results.json")
IMAGES, SIDE, CLASSES, BATCH = 4000, 32, 10, 64
PAIRS, SECONDS, DOCTOR_S = 15, 0.5, 90.0
Measure = Callable[[], tuple[float, float]]  # examples per second, elapsed and of the processor


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


def measure(dataset: Any, take_steps: Callable[[Any, int], None]) -> Measure:
    from edgeloop.cloud.input.doctor.measure import rate

    cores = len(os.sched_getaffinity(0))

    def run() -> tuple[float, float]:
        found = rate(dataset, take_steps, SECONDS)
        return BATCH / found.batch_s, BATCH / (found.batch_s * found.cpu_share * cores)

    return run


def compare(old: Measure, new: Measure) -> dict[str, Any]:
    """Runs in turns, and the ratios of the pairs: new over old."""
    import numpy as np

    rates = []
    for _ in range(PAIRS):
        first, *both, last = old(), new(), new(), old()
        rates.append(np.add(*both) / np.add(first, last))
    found = {"pairs": PAIRS}
    for k, kind in enumerate(("wall", "cpu")):
        low, median, high = np.percentile([row[k] for row in rates], [25, 50, 75])
        found[kind] = {"p25": round(float(low), 3), "p50": round(float(median), 3), "p75": round(float(high), 3)}
    return found


def main() -> None:
    import tensorflow as tf

    from edgeloop.cloud.commands.doctor import difference, examine, subject_of
    from edgeloop.cloud.input.cache import cached
    from edgeloop.cloud.input.doctor.measure import read_only
    from edgeloop.cloud.input.options import Cache, PipelineOptions
    from edgeloop.cloud.input.pipeline import batches
    from edgeloop.cloud.train.config.tables import ModelConfig
    from edgeloop.cloud.train.config.train_config import TrainConfig
    from edgeloop.cloud.train.data.data_config import DataConfig

    naive = PipelineOptions(batch=BATCH, parallel_map=1, parallel_reads=1, prefetch=0, vectorised_map=False)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        config = TrainConfig(data=DataConfig(path=Path(folder)), pipeline=naive, model=ModelConfig(name="mlp"))
        found, prepared = examine(config, DOCTOR_S, lambda what, done, total: None)
        steps, examples = subject_of(prepared, SECONDS).take_steps, prepared.training
        kept = batches(cached(examples, PipelineOptions(batch=BATCH, cache=Cache.MEMORY)), PipelineOptions(batch=BATCH))
        ceiling = in_memory(examples)
        chosen = batches(cached(examples, found.options), replace(found.options, cache=Cache.NONE, cache_folder=None))
        result = {
            "what": f"{IMAGES} PNGs of {SIDE}x{SIDE}, batch {BATCH}, a perceptron; examples/s over examples/s",
            "host": {"machine": platform.machine(), "python": platform.python_version(), "tensorflow": tf.__version__},
            "load_before": round(os.getloadavg()[0], 1),
            "memory_over_slices": compare(measure(ceiling, steps), measure(kept, steps)),
            "memory_over_slices_input_alone": compare(measure(ceiling, read_only), measure(kept, read_only)),
            "doctor_over_naive": compare(measure(batches(examples, naive), steps), measure(chosen, steps)),
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
