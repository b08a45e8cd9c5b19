"""Run as a program by `compress.py`: a .keras file in, a compressed one out, in a sandbox (processes/sandbox.py).

TF-MOT wants tf_keras under the name tf.keras, which TensorFlow decides once, while it loads.
"""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from edgeloop.convert.calls import fixed_batch, in_batches
from edgeloop.convert.compression.compress import CompressJob, CompressOptions
from edgeloop.convert.compression.fit import FitOptions, accuracy, loss
from edgeloop.convert.compression.legacy import LegacyModel, rebuild
from edgeloop.convert.compression.qat import quantization_aware
from edgeloop.convert.compression.tfmot import Weights, cluster, kernels, layer_weights, prune
from edgeloop.convert.read_samples import LabelPolicy, read_samples
from edgeloop.convert.samples import Samples
from edgeloop.convert.sources.source import Source, open_source
from edgeloop.errors import EdgeloopError, ModelError, one_line
from edgeloop.extras import need
from edgeloop.processes.job_child import Events, serve

# two frameworks, the same float32 sums in another order: measured 1e-6 on a digits net, 1e-4 leaves room for 100 of
# those; a setting that tf_keras does not know is to show here
SAME = 1e-4
NAMED = 5  # layers in one note
LOOK = 64  # samples on which two models are compared


def compress_model(job: CompressJob, events: Events) -> dict[str, Any]:
    """Do the job, and say what is in the file that was written.

    Raises:
        ModelError, DataError: As `edgeloop.convert.compression.compress.compress`.
    """
    tf, keras = need("tensorflow", extra="convert"), need("keras", extra="convert")
    source, options = _open(job), job.options
    samples = read_samples(job.train, source.inputs, labels=LabelPolicy.NEEDED)
    events.read()
    tf.config.experimental.enable_op_determinism()
    labels, answers = np.asarray(samples.labels), _answers(source, samples)
    _same(rebuild(source.model), source, samples)
    fit = FitOptions(
        x=[samples.inputs[spec.name] for spec in source.inputs],
        y=labels,
        loss=loss(answers, labels, job.model),
        batch=options.batch,
        learning_rate=options.learning_rate,
        seed=options.seed,
        told=events.progress,
    )
    size = _gzip_bytes(source.model.get_weights())
    weights, pruned, clustered, notes = _steps(source.model, options, fit)
    twin = _twin(source.model, weights)
    _check(twin.model, pruned, clustered, options)
    twin.hand_back(weights)
    _same(twin, source, samples)
    source.model.save(job.target)
    written = keras.models.load_model(job.target, compile=False).get_weights()
    if not all(np.array_equal(a, b) for a, b in zip(source.model.get_weights(), written, strict=True)):
        raise ModelError(f"{job.target} does not hold the weights that were saved", advice="Run the command again.")
    sizes = size, _gzip_bytes(written)
    if options.prune is not None or options.cluster is not None:
        notes.append(
            f"A .tflite file stores zeros and equal values in full, so its size does not change. Compressed with gzip, "
            f"the weights shrink from {sizes[0]:,} to {sizes[1]:,} bytes."
        )
    return {
        "notes": notes,
        "accuracy_before": accuracy(answers, labels),
        "accuracy_after": accuracy(_answers(source, samples), labels),
        "kernels": list(_rows(twin, pruned, clustered)),
        "gzip_bytes": sizes,
    }


def _open(job: CompressJob) -> Source:
    keras = need("keras", extra="convert")
    source = open_source(job.model)
    if not isinstance(source.model, keras.Model):
        raise ModelError(
            f"{job.model} is a {source.kind.value} model", advice="Pass a Keras 3 model: TF-MOT trains Keras layers."
        )
    if len(source.outputs) != 1:
        raise ModelError(
            f"{job.model} has {len(source.outputs)} outputs, and the labels y can train one",
            advice="Pass a model with one output.",
        )
    return source


def _steps(
    model: Any, options: CompressOptions, fit: FitOptions
) -> tuple[Weights, frozenset[str], frozenset[str], list[str]]:
    """What was asked for, step by step, each on a tf_keras model of its own: TF-MOT takes the layers apart.

    Returns:
        The weights by tf_keras layer, the layers that were pruned, those that were clustered, and what was left out.
    """
    flat = rebuild(model).model
    weights, able = layer_weights(flat), frozenset(layer.name for layer in flat.layers if kernels(layer))
    pruned: frozenset[str] = frozenset()
    clustered: frozenset[str] = frozenset()
    notes: list[str] = []
    if options.prune is not None:
        with _named("prune"):
            weights, left = prune(_twin(model, weights).model, options.prune, fit, options.epochs)
        pruned, notes = _done(able, left, "prune"), notes + _left(left, "pruned")
    if options.cluster is not None:
        with _named("cluster"):
            weights, left = cluster(_twin(model, weights).model, options.cluster, bool(pruned), fit, options.epochs)
        clustered, notes = _done(able, left, "cluster"), notes + _left(left, "clustered")
    if options.qat_epochs is not None:
        kept = weights if pruned or clustered else None
        with _named("qat"):
            weights, left = quantization_aware(_twin(model, weights).model, fit, options.qat_epochs, kept)
        notes += _left(left, "trained quantization-aware")
        notes.append("The model was trained for int8. Its activation ranges still come from --calibration.")
    return weights, pruned, clustered, notes


def _twin(model: Any, weights: Weights) -> LegacyModel:
    twin = rebuild(model)
    for name, arrays in weights.items():
        twin.model.get_layer(name).set_weights(arrays)
    return twin


def _done(able: frozenset[str], left: list[str], what: str) -> frozenset[str]:
    done = able - set(left)
    if not done:
        raise ModelError(f"the model has no layer that TF-MOT can {what}", advice=f"Leave out --{what}.")
    return done


def _left(names: list[str], what: str) -> list[str]:
    """A line that names the first of them: a MobileNet has 17 depthwise layers."""
    if not names:
        return []
    more = "" if len(names) <= NAMED else f" and {len(names) - NAMED} more"
    return [f"These layers were not {what}, because TF-MOT does not support them: {', '.join(names[:NAMED])}{more}."]


@contextlib.contextmanager
def _named(step: str) -> Iterator[None]:
    try:
        yield
    except EdgeloopError:
        raise
    except Exception as e:  # TF-MOT and the training raise what they like: ValueError, AttributeError, TensorFlow's own
        raise ModelError(
            f"TF-MOT fails at --{step} with this model: {one_line(e)}", advice=f"Leave --{step} out."
        ) from e


def _check(model: Any, pruned: Iterable[str], clustered: Iterable[str], options: CompressOptions) -> None:
    """The promise of every step, on the final weights."""
    for name in pruned:
        for kernel in _kernels(model.get_layer(name)):
            # TF-MOT rounds the number of weights that stay, so half a weight may be missing
            if np.sum(kernel == 0) < (options.prune or 0) * kernel.size - 0.5:
                raise ModelError(
                    f"{name!r} ended with {np.mean(kernel == 0):.1%} zeros",
                    advice="Pass more samples, or train for more epochs.",
                )
    for name in clustered:
        for kernel in _kernels(model.get_layer(name)):
            if len(np.unique(kernel)) > (options.cluster or 0):
                raise ModelError(f"{name!r} ended with {len(np.unique(kernel))} values", advice="Leave out --cluster.")


def _kernels(layer: Any) -> list[np.ndarray]:
    arrays = layer.get_weights()
    return [arrays[i] for i in kernels(layer)]


def _same(twin: LegacyModel, source: Source, samples: Samples) -> None:
    """The two models answer alike, or the weights of one are not the weights of the other."""
    few = samples.take(LOOK)
    given = [few.inputs[spec.name] for spec in source.inputs]
    expected = _answers(source, few)
    got = np.asarray(twin.model(given if len(given) > 1 else given[0], training=False))
    off = float(np.abs(got - expected).max()) if got.shape == expected.shape else float("inf")
    if not off <= SAME * max(1.0, float(np.abs(expected).max())):
        raise ModelError(
            f"{source.path} gives different answers when rebuilt in tf_keras (by {off:.1e}), because a layer "
            "has a setting that tf_keras lacks",
            advice="Convert without --prune, --cluster and --qat.",
        )


def _answers(source: Source, samples: Samples) -> np.ndarray:
    return in_batches(source.call, samples, fixed_batch(source.inputs))[source.outputs[0].name]


def _rows(twin: LegacyModel, pruned: frozenset[str], clustered: frozenset[str]) -> Iterator[dict[str, Any]]:
    for original, names in twin.parts:
        paths = iter(original.weights)
        for layer in map(twin.model.get_layer, names):
            paths_here = [next(paths).path for _ in layer.weights]
            for i, kernel in zip(kernels(layer), _kernels(layer), strict=True):
                yield {
                    "name": paths_here[i],
                    "values": kernel.size,
                    "zeros": int(np.sum(kernel == 0)),
                    "distinct": len(np.unique(kernel)),
                    "pruned": layer.name in pruned,
                    "clustered": layer.name in clustered,
                }


def _gzip_bytes(arrays: Iterable[np.ndarray]) -> int:
    return len(gzip.compress(b"".join(array.tobytes() for array in arrays), mtime=0))


if __name__ == "__main__":
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    serve(compress_model)
