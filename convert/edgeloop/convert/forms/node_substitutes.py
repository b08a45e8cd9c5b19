"""Operations of TensorFlow that a format lacks, each as others that it has, within a rounding of float32."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from edgeloop.convert.forms.graph_nodes import data_inputs, tensor_name
from edgeloop.convert.forms.node_functions import write_as
from edgeloop.extras import need

POOLS = ("MaxPool3D", "AvgPool3D")


def write_substitutes(graph: Any, operations: Collection[str]) -> None:
    """Every node of `operations`, which are keys of SUBSTITUTES, as other operations; its inputs are of one type."""
    for node in [node for node in graph.node if node.op in operations]:
        kind = node.attr["T"].type
        write_as(graph, node, SUBSTITUTES[node.op], [(name, kind) for name in data_inputs(node)])


def _expm1(tf: Any, x: Any) -> Any:
    return tf.tanh(x / 2) * (tf.exp(x) + 1)  # exact, and without the loss of exp(x) - 1 near 0


def _log1p(tf: Any, x: Any) -> Any:
    """Kahan's: the rounding of 1 + x shows in (1 + x) - 1 too, and the quotient takes it back."""
    above = 1 + x
    plain = tf.logical_or(tf.equal(above, 1), tf.math.is_inf(above))
    return tf.where(
        plain, tf.where(tf.equal(above, 1), x, above), tf.math.log(above) * x / tf.where(plain, x, above - 1)
    )


def _softsign(tf: Any, x: Any) -> Any:
    return x / (1 + tf.abs(x))


def _rint(tf: Any, x: Any) -> Any:
    return tf.round(x)


def _where_not_zero(compute: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """`compute` of (TensorFlow, x, y), and 0 where x is 0, whatever y is."""
    return lambda tf, x, y: tf.where(tf.equal(x, 0), tf.zeros_like(x * y), compute(tf, x, y))


SUBSTITUTES: dict[str, Callable[..., Any]] = {
    "Expm1": _expm1,
    "Log1p": _log1p,
    "Softsign": _softsign,
    "Rint": _rint,
    "Xdivy": _where_not_zero(lambda tf, x, y: x / y),
    "Xlogy": _where_not_zero(lambda tf, x, y: x * tf.math.log(y)),
    "Xlog1py": _where_not_zero(lambda tf, x, y: x * _log1p(tf, y)),
}


def write_rolls(graph: Any) -> None:
    """Roll by constants as a gather of each axis."""
    tf = need("tensorflow", extra="convert")
    nodes = {node.name: node for node in graph.node}
    for node in [node for node in graph.node if node.op == "Roll"]:
        value, *others = data_inputs(node)
        known = [nodes[name.split(":")[0]] for name in others]
        if all(one.op == "Const" for one in known):
            shifts, axes = (tf.make_ndarray(one.attr["value"].tensor).ravel().tolist() for one in known)
            compute = partial(_roll, moves=list(zip(shifts, axes, strict=True)))
            write_as(graph, node, compute, [(value, node.attr["T"].type)])


def _roll(tf: Any, x: Any, *, moves: Sequence[tuple[int, int]]) -> Any:
    for shift, axis in moves:
        size = tf.shape(x)[axis]
        x = tf.gather(x, tf.math.floormod(tf.range(size) - shift, size), axis=axis)
    return x


def write_pools(graph: Any, shapes: Mapping[str, Any]) -> None:
    """MaxPool3D and AvgPool3D as two poolings of images: height and width of each step, then the steps of each place.

    Args:
        shapes: Sizes by the name of a tensor, as `shapes_of` has them.
    """
    tf = need("tensorflow", extra="convert")
    for node in [node for node in graph.node if node.op in POOLS]:
        (value,) = data_inputs(node)
        sizes = shapes[tensor_name(value)][1:]
        if len(sizes) != 4 or node.attr["data_format"].s not in (b"", b"NDHWC"):
            continue
        compute = partial(
            _pool,
            pool=tf.nn.max_pool2d if node.op == "MaxPool3D" else tf.nn.avg_pool2d,
            sizes=sizes,
            window=list(node.attr["ksize"].list.i)[1:4],
            strides=list(node.attr["strides"].list.i)[1:4],
            padding=node.attr["padding"].s.decode(),
        )
        write_as(graph, node, compute, [(value, node.attr["T"].type)])


def _pool(
    tf: Any, x: Any, *, pool: Any, sizes: Sequence[int | None], window: list[int], strides: list[int], padding: str
) -> Any:
    given = tf.shape(x)
    depth, height, width, channels = (given[i + 1] if size is None else size for i, size in enumerate(sizes))
    images = pool(tf.reshape(x, [-1, height, width, channels]), window[1:], strides[1:], padding)
    rows, columns = (tf.shape(images)[i] if images.shape[i] is None else images.shape[i] for i in (1, 2))
    steps = tf.reshape(images, [-1, depth, rows * columns, channels])
    steps = pool(steps, [window[0], 1], [strides[0], 1], padding)
    left = tf.shape(steps)[1] if steps.shape[1] is None else steps.shape[1]
    return tf.reshape(steps, [-1, left, rows, columns, channels])
