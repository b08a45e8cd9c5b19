"""What the training loop of cloud/ costs beside Keras's `fit` and a bare `tf.distribute` loop.

    python benchmarks/cloud_train.py [--only loop,fit,scaling]      writes benchmarks/results.json

A small CNN (two strided convolutions, two dense layers) on 28x28 images that lie in memory, batch 64, SGD; the raw
loops and `fit` read the very dataset that edgeloop's loop reads. One thread for operations, one more for the input. In
a round every contender runs a block, then all run one again in the reverse order; a figure is the ratio of two sums of
a round, median and quartiles over rounds: of the elapsed time (`wall`), and of the processor time (`cpu`), which others
on the machine disturb less.

loop      one step a call, and 8 (the default) and 32, over `strategy.run` written by hand under OneDevice: on the plain
          dataset, on a distributed one as TensorFlow's guide has it; and over a traced step without any strategy
fit       the same over `fit` of Keras with as many steps a call: one epoch of 544 steps less one of 32, so that neither
          side's start counts
scaling   examples/s of two workers over twice those of one, a core each, beside the same of a loop written by hand
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

RESULTS = Path(__file__).with_name("results.json")
SIDE, CLASSES, BATCH, EXAMPLES, RATE = 28, 10, 64, 8192, 0.01
LOOP_STEPS, LOOP_ROUNDS = 96, 15
FIT_STEPS, FIT_ROUNDS = 512, 11
SCALING_STEPS, SCALING_ROUNDS = 64, 15
FIRST_STEPS = 32
TIMEOUT_S = 300.0
Block = Callable[[int], tuple[float, float]]  # steps -> (elapsed s, processor s)


def net(shape: tuple[int, ...], outputs: int) -> Any:
    """The CNN of every contender; the last layer gives logits."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(outputs),
        ]
    )


def config(data: Path, per_call: int = 8) -> Any:
    from edgeloop.cloud.input.options import PipelineOptions
    from edgeloop.cloud.train.config.tables import LoopConfig, ModelConfig, OptimizerConfig
    from edgeloop.cloud.train.config.train_config import TrainConfig
    from edgeloop.cloud.train.data.data_config import DataConfig

    return TrainConfig(
        data=DataConfig(path=data, held_out=0.01),
        pipeline=PipelineOptions(batch=BATCH),
        model=ModelConfig(name=f"{Path(__file__).stem}:net"),
        optimizer=OptimizerConfig(name="sgd", learning_rate=RATE),
        loop=LoopConfig(steps_per_call=per_call),
    )


def write_data(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    x, y = rng.random((EXAMPLES, SIDE, SIDE, 1), np.float32), rng.integers(0, CLASSES, EXAMPLES).astype(np.int32)
    np.savez(folder / "data.npz", x=x, y=y)
    return folder / "data.npz"


def few_threads() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)


# Contenders


def ours(prepared: Any) -> Callable[[int], None]:
    """The loop of a training, as `Training` calls it."""
    from edgeloop.cloud.train.step.loop import never, untold

    batches = prepared.epoch_batches(1)

    def run(steps: int) -> None:
        prepared.engine.run(batches, steps, 1, untold, never)

    return run


def by_hand(dataset: Any, strategy: Any = None, distribute: bool = False) -> Callable[[int], None]:
    """The custom loop of https://www.tensorflow.org/tutorials/distribute/custom_training."""
    from contextlib import nullcontext

    import keras
    import tensorflow as tf

    with strategy.scope() if strategy else nullcontext():
        model = net((SIDE, SIDE, 1), CLASSES)
        optimizer = keras.optimizers.SGD(RATE)
        optimizer.build(model.trainable_variables)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    every = BATCH * (strategy.num_replicas_in_sync if strategy else 1)
    iterator = iter(strategy.experimental_distribute_dataset(dataset) if distribute else dataset)

    def replica(item: tuple[Any, Any]) -> Any:
        x, y = item
        with tf.GradientTape() as tape:
            loss = tf.nn.compute_average_loss(entropy(y, model(x, training=True)), global_batch_size=every)
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    @tf.function
    def step(iterator: Any) -> Any:
        if strategy is None:
            return replica(next(iterator))
        return strategy.reduce("SUM", strategy.run(replica, args=(next(iterator),)), axis=None)

    def run(steps: int) -> None:
        for _ in range(steps):
            float(step(iterator))

    return run


def fit(dataset: Any, per_call: int) -> Callable[[int], None]:
    """Keras's own loop; one epoch a call."""
    import keras

    model = net((SIDE, SIDE, 1), CLASSES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE), loss, steps_per_execution=per_call, jit_compile=False)

    def run(steps: int) -> None:
        model.fit(dataset, steps_per_epoch=steps, epochs=1, verbose=0)

    return run


def timed(run: Callable[[int], None]) -> Block:
    def block(steps: int) -> tuple[float, float]:
        began, used = time.perf_counter(), time.process_time()
        run(steps)
        return time.perf_counter() - began, time.process_time() - used

    return block


def without_start(run: Callable[[int], None]) -> Block:
    """The steps after the first ones of a long epoch: what a short one takes is subtracted."""
    block = timed(run)

    def later(steps: int) -> tuple[float, float]:
        (short_s, short_cpu_s), (long_s, long_cpu_s) = block(FIRST_STEPS), block(FIRST_STEPS + steps)
        return long_s - short_s, long_cpu_s - short_cpu_s

    return later


# Rounds


def in_rounds(blocks: Mapping[str, Block], steps: int, rounds: int) -> dict[str, np.ndarray]:
    """Name -> [rounds, 2]: elapsed and processor seconds of a round's two blocks."""
    for run in (*blocks.values(), *blocks.values()):
        run(FIRST_STEPS)  # traced, and the threads of the input begun
    found: dict[str, list[np.ndarray]] = {name: [] for name in blocks}
    for _ in range(rounds):
        spent = {name: np.zeros(2) for name in blocks}
        for name in (*blocks, *reversed(blocks)):
            spent[name] += blocks[name](steps)
        for name, seconds in spent.items():
            found[name].append(seconds)
    return {name: np.array(rows) for name, rows in found.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"p25": round(float(low), 3), "p50": round(float(median), 3), "p75": round(float(high), 3)}


def over(spent: Mapping[str, np.ndarray], new: str, old: str) -> dict[str, Any]:
    ratios = spent[new] / spent[old]
    return {"wall": spread(ratios[:, 0]), "cpu": spread(ratios[:, 1])}


def loop(data: Path) -> dict[str, Any]:
    import tensorflow as tf

    from edgeloop.cloud.train.prepare import prepare

    few_threads()
    made = {k: prepare(config(data, k)) for k in (1, 8, 32)}
    dataset = dataset_of(made[1])
    one = tf.distribute.OneDeviceStrategy("/cpu:0")
    blocks = {
        **{f"ours_{k}": timed(ours(prepared)) for k, prepared in made.items()},
        "plain": timed(by_hand(dataset, one)),
        "distributed": timed(by_hand(dataset, one, distribute=True)),
        "bare": timed(by_hand(dataset)),
    }
    spent = in_rounds(blocks, LOOP_STEPS, LOOP_ROUNDS)
    pairs = [
        ("ours_1", "plain"), ("ours_1", "distributed"), ("ours_1", "bare"), ("ours_8", "ours_1"), ("ours_32", "ours_1"),
        ("ours_8", "plain"), ("ours_8", "distributed"), ("distributed", "plain"),
    ]  # fmt: skip
    return {
        "plain_ms_a_step": spread(spent["plain"][:, 0] / (2 * LOOP_STEPS) * 1e3),
        "rounds": LOOP_ROUNDS,
        "steps_a_block": LOOP_STEPS,
        **{f"{new} over {old}": over(spent, new, old) for new, old in pairs},
    }


def dataset_of(prepared: Any) -> Any:
    from edgeloop.cloud.input.options import PipelineOptions
    from edgeloop.cloud.input.pipeline import batches
    from edgeloop.cloud.train.data.training_data import uncached

    return batches(prepared.training, uncached(PipelineOptions(), BATCH))


def beside_fit(data: Path) -> dict[str, Any]:
    from edgeloop.cloud.train.prepare import prepare

    few_threads()
    made = {k: prepare(config(data, k)) for k in (1, 8)}
    dataset = dataset_of(made[1])
    blocks = {
        **{f"ours_{k}": without_start(ours(prepared)) for k, prepared in made.items()},
        **{f"fit_{k}": without_start(fit(dataset, k)) for k in made},
    }
    spent = in_rounds(blocks, FIT_STEPS, FIT_ROUNDS)
    pairs = [("ours_1", "fit_1"), ("ours_8", "fit_8"), ("ours_8", "fit_1")]
    return {
        "rounds": FIT_ROUNDS,
        "steps_a_block": FIT_STEPS,
        **{f"{new} over {old}": over(spent, new, old) for new, old in pairs},
    }


# Two workers


def child_worker(kind: str, data: Path) -> None:
    """A task of the cluster of TF_CONFIG, or one process alone: steps a line of standard input, seconds a line back."""
    import tensorflow as tf

    from edgeloop.cloud.train.cluster.cluster import read_cluster
    from edgeloop.cloud.train.prepare import prepare

    cluster = read_cluster()
    assert cluster is not None
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[cluster.index]})  # a core each, also of one alone
    few_threads()
    if kind == "ours":
        run = ours(prepare(config(data), cluster))
    else:
        several = cluster.workers > 1
        strategy = tf.distribute.MultiWorkerMirroredStrategy() if several else tf.distribute.OneDeviceStrategy("/cpu:0")
        run = by_hand(_plain_dataset(data, cluster), strategy, distribute=several)
    for line in sys.stdin:
        print(*timed(run)(int(line)), flush=True)


def _plain_dataset(data: Path, cluster: Any) -> Any:
    """One worker's half, as TensorFlow's guides make it."""
    import tensorflow as tf

    with np.load(data) as packed:
        x, y = packed["x"][cluster.index :: cluster.workers], packed["y"][cluster.index :: cluster.workers]
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y)).repeat().batch(BATCH, drop_remainder=True)
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


@contextmanager
def cluster_of(kind: str, workers: int, data: Path) -> Iterator[Block]:
    """Steps that all workers take together."""
    from edgeloop.cloud.train.cluster.cluster import Role
    from edgeloop.cloud.train.cluster.launching import QUIET, Task, addresses, tf_config
    from edgeloop.processes.children import owned

    where = addresses({Role.WORKER: workers})
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                owned(
                    [sys.executable, "-W", "ignore", __file__, "--child", kind, data],
                    stdin=pipe,
                    stdout=pipe,
                    stderr=sys.stderr,
                    env={**os.environ, **QUIET, "TF_CONFIG": tf_config(Task(Role.WORKER, k), where)},
                )
            )
            for k in range(workers)
        ]

        def run(steps: int) -> tuple[float, float]:
            late = threading.Timer(TIMEOUT_S, lambda: [child.kill() for child in children])
            late.start()
            try:
                for child in children:
                    assert child.stdin is not None
                    child.stdin.write(b"%d\n" % steps)
                    child.stdin.flush()
                rows = [child.stdout.readline().split() for child in children if child.stdout is not None]
            finally:
                late.cancel()
            if not all(rows):
                raise RuntimeError(f"a worker of {kind} ended or took more than {TIMEOUT_S:g} s")
            seconds = np.array(rows, float)
            return float(seconds[:, 0].max()), float(seconds[:, 1].sum())

        yield run


def scaling(data: Path) -> dict[str, Any]:
    with ExitStack() as stack:
        blocks = {
            f"{kind}_{workers}": stack.enter_context(cluster_of(kind, workers, data))
            for kind in ("ours", "by_hand")
            for workers in (1, 2)
        }
        spent = in_rounds(blocks, SCALING_STEPS, SCALING_ROUNDS)
    weak = {kind: spread(spent[f"{kind}_1"][:, 0] / spent[f"{kind}_2"][:, 0]) for kind in ("ours", "by_hand")}
    return {
        "rounds": SCALING_ROUNDS,
        "steps_a_block": SCALING_STEPS,
        "weak_scaling": weak,  # n workers take n batches a step: 1 is perfect
        "ours_2 over by_hand_2": over(spent, "ours_2", "by_hand_2"),
        "ours_1 over by_hand_1": over(spent, "ours_1", "by_hand_1"),
    }


SECTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "loop": loop,
    "fit": beside_fit,
    "scaling": scaling,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", default=",".join(SECTIONS), metavar="NAMES", help="Measure these sections, separated by commas."
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child_worker(given.child[0], Path(given.child[1]))
        return
    names = given.only.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        parser.error(f"--only has the unknown section {unknown[0]!r}. Use {', '.join(SECTIONS)}.")
    measure({name: SECTIONS[name] for name in names})


def measure(sections: Mapping[str, Callable[[Path], dict[str, Any]]]) -> None:
    """Measure these, write them into results.json and print them."""
    from importlib.metadata import version

    from edgeloop.leftovers import temporary_folder

    found: dict[str, Any] = {}
    found["host"] = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "tensorflow": version("tensorflow"),
    }
    with temporary_folder() as folder:
        data = write_data(Path(folder))
        for name, section in sections.items():
            busy = os.getloadavg()[0]
            found[name] = {**section(data), "load_before": round(busy, 1)}
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results["cloud_train"] = {**results.get("cloud_train", {}), **found}
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    json.dump(found, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
