"""Run as a program by `onnx_source.py` in the environment of onnx2tf: one job in, a SavedModel out.

onnx2tf guesses which tensors to turn from channels first to channels last, and where two dimensions are equal it can
guess wrong without a word (measured: a residual net on 8x8x8 features, outputs off by 0.09). So nothing it makes is
believed: the graph is run on made-up inputs beside ONNX Runtime, and another way of reading the inputs is tried.

Sources
    onnx2tf's options  https://github.com/PINTO0309/onnx2tf
"""

import importlib.util
import itertools
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.errors import MissingExtra, ModelError, one_line
from edgeloop.processes.job_child import Events, serve

LIMIT_BYTES = 2**31 - 1  # of one protobuf, which onnx2tf passes a model around as
BATCHES = ((2, 3), (1, 1))  # sizes of a free batch, one a trial; (1, 1) for graphs that only call theirs free
FREE_SIZES = (32, 8, 64, 224, 1)  # of any other free dimension: the first that ONNX Runtime accepts
INTEGERS_BELOW = (100, 2)  # 2: indices into any table are in range

RECURRENT = {"LSTM", "GRU", "RNN"}


def saved_model(job: dict[str, Any], events: Events) -> dict[str, Any]:
    """Do the job of `onnx_source.py`.

    Raises:
        ModelError: The model cannot be converted, and why.
        MissingExtra: onnx2tf does not load.
    """
    sys.addaudithook(no_network)
    try:
        convert(job)
    except ImportError as e:
        raise MissingExtra(f"{sys.executable} does not load onnx2tf: {e}", advice="Run: edgeloop setup onnx2tf") from e
    return {}


def no_network(event: str, _arguments: object) -> None:
    """onnx2tf fetches pictures for models of three channels; an audit hook cannot be taken off again."""
    if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}:
        raise OSError("the converter may not use the network")


def load_onnx2tf() -> Any:
    """onnx2tf without what it imports and a conversion to a SavedModel never calls: LiteRT (60 MB)."""
    litert: Any = types.ModuleType("ai_edge_litert.interpreter")
    litert.Interpreter = None
    sys.modules.setdefault("ai_edge_litert", types.ModuleType("ai_edge_litert"))
    sys.modules.setdefault("ai_edge_litert.interpreter", litert)
    import tensorflow as tf
    from onnx2tf import onnx2tf

    for name in ("conv1d_transpose", "conv2d_transpose", "conv3d_transpose"):
        setattr(tf.nn, name, with_free_batch(getattr(tf.nn, name)))
    # only looked at for shapes; the original is a download
    onnx2tf.download_test_image_data = lambda: np.random.default_rng(0).random((20, 128, 128, 3), np.float32)
    return onnx2tf


def with_free_batch(conv_transpose: Callable[..., Any]) -> Callable[..., Any]:
    """onnx2tf 1.28.8 hands a free batch on as ONNX's name for it ("n"), which these functions do not take."""
    import tensorflow as tf

    def patched(input: Any, filters: Any, output_shape: Any, **options: Any) -> Any:
        if not isinstance(output_shape[0], int):
            output_shape = tf.stack([tf.shape(input)[0], *output_shape[1:]])
        return conv_transpose(input, filters, output_shape, **options)

    return patched


def convert(job: dict) -> None:
    """Write the first conversion that agrees with ONNX Runtime into job["folder"].

    `job`: "model" and "folder" are paths; "inputs" and "outputs" the names of the signature, in ONNX's order.

    Raises:
        ModelError: An operator is unknown, or no way of reading the inputs gives what ONNX Runtime gives.
    """
    import onnx

    converter = load_onnx2tf()
    model = onnx.load(job["model"])
    check(model)
    trials = make_trials(job["model"], model)
    nodes = rename(model)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    failures = []
    for options in input_readings(model):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        try:
            keras_model = lower(converter, copy, options)
        except (Exception, SystemExit) as e:  # onnx2tf raises everything, and exits; the next reading may pass
            where = nodes.get(getattr(e, "onnx_op_name", ""), "the graph")
            failures.append(f"onnx2tf fails at {where} ({type(e).__name__}: {plain(e)})")
            continue
        turns = [turn(expected, got) for expected, got in outputs_of(keras_model, trials)]
        wrong = [name for name, found in zip(job["outputs"], turns, strict=True) if found is None]
        if not wrong:
            save(keras_model, model, trials, turns, job)
            return
        failures.append(
            f"onnx2tf's result computes {', '.join(wrong)} differently from ONNX Runtime, which can happen where "
            "channels and another dimension have the same size"
        )
    raise ModelError(failures[0], advice="Convert the model that the .onnx was exported from, or change that part.")


def plain(error: BaseException) -> str:
    """What an error says, in one line of at most 200 characters, without colours."""
    return one_line(re.sub(r"\x1b\[\d*m", "", str(error)), 200)


def check(model: Any) -> None:
    """Raises ModelError over 2 GB, and for operators that onnx2tf has no module for, naming all of them."""
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LIMIT_BYTES:
        raise ModelError("its weights take more than 2 GB", advice="Convert a smaller model.")
    own = {(f.domain, f.name) for f in model.functions}
    unknown = set()
    for graph in (*graphs(model.graph), *model.functions):
        for node in graph.node:
            standard = node.domain in ("", "ai.onnx") and node.op_type.isidentifier()
            known = standard and importlib.util.find_spec(f"onnx2tf.ops.{node.op_type}")
            if not known and (node.domain, node.op_type) not in own:
                unknown.add(f"{node.domain}.{node.op_type}".lstrip("."))
    if unknown:
        raise ModelError(f"onnx2tf has no operator {', '.join(sorted(unknown))}", advice="Export the model without it.")


def graphs(graph: Any) -> Iterator[Any]:
    """The graph, and those in the attributes of its nodes (If, Loop, Scan)."""
    yield graph
    for attribute in (a for node in graph.node for a in node.attribute):
        for inner in (attribute.g, *attribute.graphs):
            if inner.node or inner.output:
                yield from graphs(inner)


def rename(model: Any) -> dict[str, str]:
    """Give every node and tensor a name that TensorFlow takes: in_0, out_0, t_0, n_0. Functions are inlined.

    Returns:
        Which node was which, for messages: {"n_3": "Conv 'block1/conv'"}.
    """
    import onnx.inliner

    if model.functions:
        model.CopyFrom(onnx.inliner.inline_local_functions(model))
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)  # before IR 4 every initializer is listed there too
    new = {"": ""}  # an optional input or output that is left out
    for prefix, values in (("in", model.graph.input), ("out", model.graph.output)):
        for i, value in enumerate(values):
            new.setdefault(value.name, f"{prefix}_{i}")
    nodes: dict[str, str] = {}
    for graph in graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            value.name = new.setdefault(value.name, f"t_{len(new)}")
        for tensor in graph.sparse_initializer:
            tensor.values.name = new.setdefault(tensor.values.name, f"t_{len(new)}")
        for node in graph.node:
            nodes[f"n_{len(nodes)}"] = f"{node.op_type} {node.name!r}" if node.name else node.op_type
            node.name = f"n_{len(nodes) - 1}"
            for names in (node.input, node.output):
                names[:] = [new.setdefault(name, f"t_{len(new)}") for name in names]
    return nodes


def input_readings(model: Any) -> list[dict]:
    """Options of onnx2tf, the plainer graph first: inputs as they come; inputs turned to channels last inside.

    Recurrent layers are unrolled where their length is fixed: with a free batch TFLite has no operators for the loop.
    """
    names = [value.name for value in model.graph.input]
    images = [v.name for v in model.graph.input if len(v.type.tensor_type.shape.dim) in (3, 4, 5)]
    readings = [{"keep_shape_absolutely_input_names": names}]
    if images:
        readings.append({"keep_ncw_or_nchw_or_ncdhw_input_names": images})
    recurrent = any(node.op_type in RECURRENT for graph in graphs(model.graph) for node in graph.node)
    unroll = (True, False) if recurrent else (False,)
    return [reading | {"enable_rnn_unroll": u} for u in unroll for reading in readings]


def lower(converter: Any, model: Any, options: dict) -> Any:
    """onnx2tf's tf_keras model. Without a path to the file: with one it writes there, and starts programs."""
    return converter.convert(
        onnx_graph=model,
        output_folder_path=str(Path.cwd() / "onnx2tf"),
        not_use_onnxsim=True,
        not_use_opname_auto_generate=True,
        disable_model_save=True,
        non_verbose=True,
        verbosity="error",
        **options,
    )


def make_trials(path: str, model: Any) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Two sets of made-up inputs, each with ONNX Runtime's finite answers; free dimensions differ where they may.

    Raises:
        ModelError: ONNX Runtime does not load the model, or runs it on nothing that could be made up.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # a family of types of its own
        raise ModelError(f"ONNX Runtime cannot load it ({plain(e)})", advice="Export the model again.") from e
    inputs = session.get_inputs()
    batch_names = {i.shape[0] for i in inputs if i.shape and isinstance(i.shape[0], str)}
    types_in = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    reason = "its answers are not finite"
    for batches, free, below, normal in itertools.product(BATCHES, FREE_SIZES, INTEGERS_BELOW, (True, False)):
        rng = np.random.default_rng(0)
        trials = []
        for batch in batches:
            fed = []
            for i in inputs:
                sizes = [
                    size if isinstance(size, int) else batch if axis == 0 or size in batch_names else free
                    for axis, size in enumerate(i.shape)
                ]
                fed.append(made_up(rng, sizes, types_in[i.name], below, normal))
            try:
                answers = session.run(None, dict(zip([i.name for i in inputs], fed, strict=True)))
            except Exception as e:
                reason = plain(e)
                break
            if not all(np.isfinite(a).all() for a in answers if a.dtype.kind == "f"):
                break
            trials.append((fed, answers))
        if len(trials) == len(batches):
            return trials
    raise ModelError(
        f"ONNX Runtime fails on every generated input, so no conversion can be checked ({reason})",
        advice="Convert the model that the .onnx was exported from.",
    )


def made_up(rng: np.random.Generator, sizes: list[int], elem_type: int, below: int, normal: bool) -> np.ndarray:
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
    if dtype.kind == "f":
        return (rng.standard_normal(sizes) if normal else rng.random(sizes)).astype(dtype)
    if dtype.kind not in "iub":
        raise ModelError(
            f"an input of type {dtype} has no counterpart in TensorFlow Lite",
            advice="Export it with numbers as inputs.",
        )
    return rng.integers(0, 2 if dtype.kind == "b" else below, sizes).astype(dtype)


def outputs_of(keras_model: Any, trials: list) -> list[tuple[list, list]]:
    """For each output: ONNX Runtime's values and the converted graph's, one pair a trial."""
    got = [call(keras_model, fed) for fed, _ in trials]
    expected = [answers for _, answers in trials]
    return [([e[i] for e in expected], [g[i].numpy() for g in got]) for i in range(len(expected[0]))]


def call(keras_model: Any, fed: list) -> list:
    """Run or trace the model. Its inputs bear the numbers that `rename` gave; unused ones may be gone."""
    import tensorflow as tf

    values = [fed[int(t.name.removeprefix("in_"))] for t in keras_model.inputs]
    values = [tf.cast(v, t.dtype) for v, t in zip(values, keras_model.inputs, strict=True)]
    return tf.nest.flatten(keras_model(values if len(values) > 1 else values[0], training=False))


def turn(expected: list[np.ndarray], got: list[np.ndarray]) -> tuple[int, ...] | None:
    """The transposition after which `got` is `expected` in every trial: none, channels first, channels last."""
    rank = expected[0].ndim
    turns = [tuple(range(rank))]
    if rank > 2:
        turns += [(0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)]
    for permutation in turns:
        if all(g.ndim == rank and agree(e, g.transpose(permutation)) for e, g in zip(expected, got, strict=True)):
            return permutation
    return None


def agree(expected: np.ndarray, got: np.ndarray) -> bool:
    """Whether two outputs differ by rounding alone.

    float32 rounds by 6e-8; a sum of 10,000 terms in another order moves by 100 times that, and layers add up: 1e-4 of
    the span of the values, beside 1e-5 of their size for outputs that hardly vary. A wrong transposition was off by
    0.06 of it and more. Integers come from a comparison, which a tie may turn: one in a thousand.
    """
    if expected.shape != got.shape:
        return False
    if not expected.size:
        return True
    if expected.dtype.kind != "f":
        return bool((expected != got).mean() <= 1e-3)
    e, g = expected.astype(np.float64), got.astype(np.float64)
    return bool(np.abs(e - g).max() <= 1e-4 * np.ptp(e) + 1e-5 * np.abs(e).max())


def save(keras_model: Any, model: Any, trials: list, turns: list, job: dict) -> None:
    """A SavedModel with the signature serving_default: ONNX's names (made identifiers), shapes and dtypes."""
    import onnx
    import tensorflow as tf

    def spec(value: Any) -> tuple:
        tensor = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        return shape, tf.as_dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))

    declared = [spec(value) for value in model.graph.output]

    @tf.function(autograph=False)
    def serve(**tensors: Any) -> dict[str, Any]:
        results = {}
        got = call(keras_model, [tensors[name] for name in job["inputs"]])
        for i, (name, value, permutation) in enumerate(zip(job["outputs"], got, turns, strict=True)):
            shape, dtype = declared[i]
            if permutation != tuple(sorted(permutation)):
                value = tf.transpose(value, permutation)
            value = tf.identity(tf.cast(value, dtype))  # identity: an output may be an input
            if all(fits(shape, answers[i].shape) for _, answers in trials):  # declared shapes may be wrong
                value.set_shape(shape)
            results[name] = value
        return results

    module = tf.Module()
    module.weights = keras_model.variables  # a SavedModel keeps what hangs on it
    inputs = [spec(value) for value in model.graph.input]
    specs = {n: tf.TensorSpec(*i, name=n) for n, i in zip(job["inputs"], inputs, strict=True)}
    module.serve = serve
    tf.saved_model.save(module, job["folder"], signatures={"serving_default": serve.get_concrete_function(**specs)})


def fits(declared: list, shape: tuple) -> bool:
    return len(declared) == len(shape) and all(d in (None, s) for d, s in zip(declared, shape, strict=True))


if __name__ == "__main__":
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_USE_LEGACY_KERAS="1", CUDA_VISIBLE_DEVICES="-1")
    os.environ["KERAS_HOME"] = str(Path.cwd())  # the parent's scratch folder: nothing is written to the user's home
    serve(saved_model)
