"""A trained tf_keras model in, the same layers with sparse or clustered kernels out, by TF-MOT.

Sources
    pruning        Zhu, Gupta 2017, https://arxiv.org/abs/1710.01878 (magnitude, cubic schedule: eq. 1)
    clustering     Han, Mao, Dally 2016, https://arxiv.org/abs/1510.00149 (section 3, centroids fine-tuned)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.convert.compression.fit import FitOptions
from edgeloop.extras import need

Weights = dict[str, list[np.ndarray]]  # by layer name, in get_weights order
# measured on TF-MOT 0.8.1: a recurrent layer is accepted and keeps every weight; an attention layer comes back with its
# kernels and biases in another order
UNPRUNED = ("GRU", "LSTM", "SimpleRNN", "RNN")
UNCLUSTERED = ("MultiHeadAttention", "Bidirectional")
CORE = "tensorflow_model_optimization.python.core"  # what it does not export
PRUNINGS = 20  # sortings of every kernel on the way to the final sparsity


def layer_weights(model: Any) -> Weights:
    """Of every layer that has some."""
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def kernels(layer: Any) -> list[int]:
    """Which of a layer's weights are kernels or tables, by position: what is pruned and clustered, biases are not."""
    return [i for i, w in enumerate(layer.weights) if "kernel" in _last(w.name) or "embeddings" in _last(w.name)]


def prune(model: Any, sparsity: float, fit: FitOptions, epochs: int) -> tuple[Weights, list[str]]:
    """Fine-tune while the smallest weights of each kernel become zero, up to `sparsity` after three quarters.

    Returns:
        The weights by layer name, and the layers with kernels that TF-MOT does not prune (depthwise ones, wrappers).
    """
    tf_keras = need("tf_keras", extra="convert")
    api = need("tensorflow_model_optimization", extra="convert").sparsity.keras
    last = max(1, fit.steps * epochs * 3 // 4)
    every = max(1, last // PRUNINGS)
    # the mask is renewed at multiples of `every` alone: an end between two would stop short of the final sparsity
    schedule = api.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=last // every * every, frequency=every)

    registry = need(f"{CORE}.sparsity.keras.prune_registry", extra="convert").PruneRegistry

    def wrap(layer: Any) -> Any:
        if type(layer).__name__ in UNPRUNED or not registry.supports(layer):
            return None
        known = registry.make_prunable(layer).get_prunable_weights()  # none of a DepthwiseConv2D
        return api.prune_low_magnitude(layer, pruning_schedule=schedule) if known else None

    wrapped, left = _wrapped(tf_keras, model, wrap)
    fit.run(wrapped, "prune", epochs, [api.UpdatePruningStep()])
    return layer_weights(api.strip_pruning(wrapped)), left


def cluster(model: Any, count: int, keep_zeros: bool, fit: FitOptions, epochs: int) -> tuple[Weights, list[str]]:
    """Fine-tune `count` shared values for each kernel, one of them zero where zeros are to be kept.

    Returns:
        The weights by layer name, and the layers with kernels that TF-MOT does not cluster.
    """
    tf_keras = need("tf_keras", extra="convert")
    api = need("tensorflow_model_optimization", extra="convert").clustering.keras
    # the documented name of `cluster_weights` with preserve_sparsity is exported as a module without it
    keeping = need(f"{CORE}.clustering.keras.experimental.cluster", extra="convert")
    registry = need(f"{CORE}.clustering.keras.clustering_registry", extra="convert").ClusteringRegistry

    kept: list[Any] = []  # layers that TF-MOT does not touch: fine-tuning would fill their zeros

    def wrap(layer: Any) -> Any:
        arrays = [layer.get_weights()[i] for i in kernels(layer)]
        if all(len(np.unique(array)) <= count for array in arrays):
            kept.append(layer)
            return layer
        if type(layer).__name__ in UNCLUSTERED or not registry.supports(layer):
            return None
        if not registry.make_clusterable(layer).get_clusterable_weights():
            return None
        # k-means++ fails with fewer values than it wants centroids, on either side of zero where zeros are kept
        few = any(min((array < 0).sum(), (array > 0).sum()) < count for array in arrays)
        start = api.CentroidInitialization.LINEAR if few else api.CentroidInitialization.KMEANS_PLUS_PLUS
        return keeping.cluster_weights(layer, count, start, preserve_sparsity=keep_zeros)

    wrapped, left = _wrapped(tf_keras, model, wrap)
    kept += [model.get_layer(name) for name in left]
    pairs = [(layer.weights[i], layer.get_weights()[i]) for layer in kept for i in kernels(layer)]
    fit.run(wrapped, "cluster", epochs, [keep_ties(pairs)])
    return layer_weights(api.strip_clustering(wrapped)), left


def keep_ties(pairs: list[tuple[Any, np.ndarray]]) -> Any:
    """A callback that keeps zero what is zero and equal what is equal in each array, in the variable beside it.

    After every batch each group of equal weights takes its mean: the nearest point of the subspace of equal ones.
    """
    tied = []
    for variable, array in pairs:
        values, group = np.unique(array, return_inverse=True)
        if len(values) < array.size:
            tied.append((variable, group.ravel(), values == 0))

    def project(batch: int, logs: Any) -> None:
        for variable, group, zero in tied:
            mean = np.bincount(group, variable.numpy().ravel()) / np.bincount(group)
            mean[zero] = 0.0
            variable.assign(mean[group].reshape(variable.shape).astype(np.float32))

    return need("tf_keras", extra="convert").callbacks.LambdaCallback(on_batch_end=project)


def _wrapped(tf_keras: Any, model: Any, wrap: Callable[[Any], Any]) -> tuple[Any, list[str]]:
    """A clone in which every layer with kernels is wrapped, and the names of those for which `wrap` has None."""
    left = []

    def each(layer: Any) -> Any:
        wrapped = wrap(layer) if kernels(layer) else layer
        if wrapped is None:
            left.append(layer.name)
            return layer
        return wrapped

    return tf_keras.models.clone_model(model, clone_function=each), left


def _last(name: str) -> str:
    """ "conv/depthwise_kernel:0" -> "depthwise_kernel"."""
    return name.split(":")[0].split("/")[-1]
