"""Embeddings too large for one parameter server: their rows are split over all of them.

Keras 3 variables cannot be split (`ShardedVariable` is no Keras variable), so that under ParameterServerStrategy the
table is a plain `tf.Variable`, which is trained by plain SGD on the rows that a batch names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from functools import cache
from typing import Any

from edgeloop.extras import need

SPLIT_BYTES = 64 << 10  # no part is smaller
_splitting: ContextVar[bool] = ContextVar("splitting", default=False)


def partitioner(servers: int) -> Callable[..., Sequence[int]]:
    """What ParameterServerStrategy asks for every variable: tables are split, all others stay whole."""
    tf = need("tensorflow", extra="cloud")
    split = tf.distribute.experimental.partitioners.MinSizePartitioner(SPLIT_BYTES, max_shards=servers)

    def parts(shape: Any, dtype: Any, axis: int = 0) -> Sequence[int]:
        return split(shape, dtype, axis) if _splitting.get() else [1] * len(shape)

    return parts


@cache
def embedding_class() -> Any:
    """`PartitionedEmbedding(rows, columns)`, a Keras layer: integers [...] to float32 [..., columns]."""
    tf, keras = need("tensorflow", extra="cloud"), need("keras", extra="cloud")

    @keras.saving.register_keras_serializable("edgeloop")
    class PartitionedEmbedding(keras.layers.Layer):  # type: ignore[name-defined]  # keras comes late
        def __init__(self, rows: int, columns: int, **more: Any) -> None:
            super().__init__(**more)
            self.rows, self.columns = rows, columns

        def build(self, shape: Any) -> None:
            if isinstance(tf.distribute.get_strategy(), tf.distribute.ParameterServerStrategy):
                token = _splitting.set(True)
                seed = tf.random.uniform([2], maxval=1 << 30, dtype=tf.int32)
                self.table = tf.Variable(tf.random.stateless_uniform([self.rows, self.columns], seed, -0.05, 0.05))
                _splitting.reset(token)
            else:
                self.table = self.add_weight(shape=(self.rows, self.columns), initializer="uniform", name="table")
            self.variable = _variable(self.table)

        def call(self, rows: Any) -> Any:
            return tf.nn.embedding_lookup(self.variable, tf.cast(rows, tf.int32))

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "rows": self.rows, "columns": self.columns}

    return PartitionedEmbedding


def tables(model: Any) -> list[Any]:
    """The tables of a model that Keras does not know of as variables, in the order of its layers."""
    return [layer.table for layer in _partitioned(model) if not _of_keras(layer.table)]


def parts_of(table: Any) -> list[Any]:
    """The variables of a table: one where it was too small to be split."""
    return list(getattr(table, "variables", [table]))


def table_parts(model: Any) -> list[Any]:
    """The parts of all tables of a model, which gradients are taken of."""
    return [part for table in tables(model) for part in parts_of(table)]


def model_values(model: Any) -> dict[str, Any]:
    """Names to variables of a model, for a checkpoint; a table has the same name whole and in parts."""
    found = [layer.table for layer in _partitioned(model)]
    plain = [variable.value for variable in model.variables if not any(variable is table for table in found)]
    values = {f"model/{k:04d}": variable for k, variable in enumerate(plain)}
    return values | {f"tables/{k:04d}": _variable(table) for k, table in enumerate(found)}


def copy_weights(source: Any, target: Any) -> None:
    """Give `target`, the same model in this process, the weights of `source` on parameter servers."""
    tf = need("tensorflow", extra="cloud")
    whole = {id(layer.table) for layer in _partitioned(target)} if tables(source) else set()
    plain = [variable for variable in target.variables if id(variable) not in whole]
    for to, variable in zip(plain, source.variables, strict=True):
        to.assign(variable.numpy())
    if whole:
        for layer, table in zip(_partitioned(target), tables(source), strict=True):
            layer.table.assign(tf.concat([part.read_value() for part in parts_of(table)], 0).numpy())


def _partitioned(model: Any) -> Iterable[Any]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, embedding_class())]


def _of_keras(table: Any) -> bool:
    return isinstance(table, need("keras", extra="cloud").Variable)


def _variable(table: Any) -> Any:
    """TensorFlow's variable behind a table."""
    return table.value if _of_keras(table) else table
