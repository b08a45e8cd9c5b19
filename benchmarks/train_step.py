"""One step of SGD on a device: `trainable.tflite` in LiteRT against Keras under `tf.function`.

    python benchmarks/train_step.py [NET...]        writes benchmarks/results.json: every net, or the named ones

Both do the same arithmetic on the same batch, one thread each, in blocks that alternate within one process. `ratio` is
that of the blocks' CPU times: median and quartiles over pairs. `apart` is how far the weights of LiteRT lie from those
of Keras after ONE step from the same weights, at each of 20 steps of Keras's trajectory: over more steps, one near tie
in a pooling window or a ReLU grows, and TensorFlow with oneDNN lies as far from TensorFlow without.

`device` measures the same files in a device's environment, without TensorFlow: `scripts/setup use` makes it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
RESULTS = Path(__file__).with_name("results.json")
DEVICE_PYTHON = Path(__file__).parent.parent / ".venv-device/bin/python"
PAIRS, BLOCK_S, RATE, STEPS = 30, 0.15, 0.05, 20
NETS = {  # network, image, batch
    "demo_8x8": ("small_cnn", (8, 8, 1), 16),
    "demo_28x28": ("small_cnn", (28, 28, 1), 16),
    "mcmahan_10": ("mcmahan_cnn", (28, 28, 1), 10),
    "mcmahan_32": ("mcmahan_cnn", (28, 28, 1), 32),
}
DEVICE = """
import json, sys, time
import numpy as np
runtime, path, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
if runtime == "litert":
    from ai_edge_litert.interpreter import Interpreter
else:
    from tflite_runtime.interpreter import Interpreter
def peak():  # of this process since it began: getrusage's is inherited from the parent
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
before = peak()
train = Interpreter(model_path=path, num_threads=1).get_signature_runner("train")
shape, rng = train.get_input_details()["image"]["shape"], np.random.default_rng(0)
batch = {"image": rng.random(shape, np.float32), "y": rng.integers(0, 10, shape[0], np.int32), "lr": np.float32(0.01)}
took = []
for _ in range(steps):
    start = time.process_time()
    train(**batch)
    took.append((time.process_time() - start) * 1e3)
print(json.dumps({"cpu_p50_ms": float(np.median(took[2:])), "rss_peak_mb": peak(), "rss_peak_before_load_mb": before}))
"""


def keras_step(model: Any) -> Callable[[Any, Any], Any]:
    """A compiled step of SGD on `model`."""
    import keras
    import tensorflow as tf

    optimizer, entropy = keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy()
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = entropy(y, model(x, training=True))
        optimizer.apply_gradients(zip(tape.gradient(loss, [v.value for v in variables]), variables, strict=True))
        return loss

    return step


def distances(model: Any, cloud: Callable, device: Any, batch: Callable) -> list[float]:
    """The largest difference of a weight after one step from the same weights, at each step of Keras's trajectory."""
    import numpy as np

    train, load, save = (device.get_signature_runner(n) for n in ("train", "set_weights", "get_weights"))
    found = []
    for _ in range(STEPS):
        x, y = batch()
        load(**{f"w{i:03d}": w for i, w in enumerate(model.get_weights())})
        train(image=x, y=y, lr=np.float32(RATE))
        cloud(x, y)
        mine = save(dummy=np.float32(0))
        found.append(max(float(np.abs(mine[f"w{i:03d}"] - w).max()) for i, w in enumerate(model.get_weights())))
    return found


def cpu_times(contenders: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """CPU milliseconds a step of each contender, in blocks that alternate."""
    steps, times = 1, {name: [] for name in contenders}
    for pair in range(PAIRS + 1):  # the first pair warms up, and says how many steps make a block
        for name, step in contenders.items():
            start = time.process_time()
            for _ in range(steps):
                step()
            spent = (time.process_time() - start) / steps
            if pair:
                times[name].append(spent * 1e3)
        steps = steps if pair else max(1, round(BLOCK_S / spent))
    return times


def on_a_device(blob: bytes) -> dict[str, Any]:
    """A step's CPU time and the peak resident memory of a process that trains, for each runtime of a device."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.tflite")
        path.write_bytes(blob)
        for runtime in ("litert", "tflite-runtime"):
            command = [DEVICE_PYTHON, "-I", "-c", DEVICE, runtime, path, "200"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
            found[runtime] = json.loads(done.stdout)
    return found


def measure(net: str, image: tuple[int, int, int], size: int) -> dict[str, Any]:
    import keras
    import numpy as np
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from edgeloop.cloud.train.model import built_in
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    keras.utils.set_random_seed(0)
    model, rng = getattr(built_in, net)(image, 10), np.random.default_rng(0)

    def batch() -> tuple[Any, Any]:
        return rng.random((size, *image), np.float32), rng.integers(0, 10, size, np.int32)

    blob, cloud = to_trainable(model, TrainableOptions(batch=size)), keras_step(model)
    device = Interpreter(model_content=blob, num_threads=1)
    apart = distances(model, cloud, device, batch)
    train, (x, y) = device.get_signature_runner("train"), batch()
    tx, ty = tf.constant(x), tf.constant(y)
    times = cpu_times(
        {
            "tensorflow": lambda: cloud(tx, ty).numpy(),
            "litert": lambda: train(image=x, y=y, lr=np.float32(RATE)),
        }
    )
    low, middle, high = np.percentile(np.array(times["litert"]) / np.array(times["tensorflow"]), [25, 50, 75])
    return {
        "litert_cpu_p50_ms": float(np.median(times["litert"])),
        "tensorflow_cpu_p50_ms": float(np.median(times["tensorflow"])),
        "ratio_p25": float(low),
        "ratio_p50": float(middle),
        "ratio_p75": float(high),
        "pairs": PAIRS,
        "batch": size,
        "bytes": len(blob),
        "apart_p50": float(np.median(apart)),
        "apart_max": max(apart),
        "device": on_a_device(blob) if DEVICE_PYTHON.is_file() else {},
    }


def main() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results["train_step"] = {
        **results.get("train_step", {}),
        "what": "one SGD step: trainable.tflite in LiteRT over Keras under tf.function, one thread",
        "host": {"machine": platform.machine(), "python": platform.python_version(), "tensorflow": tf.__version__},
        **{name: measure(*net) for name, net in NETS.items() if name in (sys.argv[1:] or NETS)},
    }
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    json.dump(results["train_step"], sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
