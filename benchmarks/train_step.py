"""One step of SGD on the demo's network: `trainable.tflite` in LiteRT against Keras under `tf.function`.

    python benchmarks/train_step.py        writes benchmarks/results.json

Both do the same arithmetic on the same batch (tests/convert/integration/test_trainable.py), one thread each, in blocks
that alternate within one process. The figure is the ratio of the blocks' CPU times, median and quartiles over pairs.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
RESULTS = Path(__file__).with_name("results.json")
PAIRS, BLOCK, BATCH, RATE = 40, 50, 16, 0.05


def steps(image: tuple[int, int, int]) -> dict[str, Callable[[], None]]:
    """A function a contender that does one training step."""
    import keras
    import numpy as np
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from edgeloop.cloud.train.model.built_in import small_cnn
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    keras.utils.set_random_seed(0)
    model = small_cnn(image, 10)
    rng = np.random.default_rng(0)
    x, y = rng.random((BATCH, *image), np.float32), rng.integers(0, 10, BATCH, np.int32)
    device = Interpreter(model_content=to_trainable(model, TrainableOptions(batch=BATCH)), num_threads=1)
    train = device.get_signature_runner("train")
    optimizer, entropy = keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy()
    optimizer.build(model.trainable_variables)
    variables = model.trainable_variables

    @tf.function
    def cloud(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = entropy(y, model(x, training=True))
        optimizer.apply_gradients(zip(tape.gradient(loss, [v.value for v in variables]), variables, strict=True))
        return loss

    tx, ty = tf.constant(x), tf.constant(y)
    return {
        "litert": lambda: train(image=x, y=y, lr=np.float32(RATE)),
        "tensorflow": lambda: cloud(tx, ty).numpy(),
    }


def measure(image: tuple[int, int, int]) -> dict[str, float]:
    """CPU milliseconds a step of each contender, and their ratio over alternating blocks."""
    import numpy as np

    contenders = steps(image)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for pair in range(PAIRS + 1):  # the first pair warms up
        for name, step in contenders.items():
            start = time.process_time()
            for _ in range(BLOCK):
                step()
            if pair:
                times[name].append((time.process_time() - start) / BLOCK * 1e3)
    ratios = np.array(times["litert"]) / np.array(times["tensorflow"])
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return {
        "litert_cpu_p50_ms": float(np.median(times["litert"])),
        "tensorflow_cpu_p50_ms": float(np.median(times["tensorflow"])),
        "ratio_p25": float(low),
        "ratio_p50": float(middle),
        "ratio_p75": float(high),
        "pairs": PAIRS,
        "steps_a_block": BLOCK,
    }


def main() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results["train_step"] = {
        "what": f"one SGD step, batch {BATCH}: trainable.tflite in LiteRT over Keras under tf.function, one thread",
        "host": {"machine": platform.machine(), "python": platform.python_version(), "tensorflow": tf.__version__},
        "digits_8x8": measure((8, 8, 1)),
        "mnist_28x28": measure((28, 28, 1)),
    }
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    json.dump(results["train_step"], sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
