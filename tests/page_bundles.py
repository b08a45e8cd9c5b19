"""Small bundles for the page, written in milliseconds without TensorFlow: y = sum of x_i @ W_i + b, or its softmax."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeloop.bundle import (
    MANIFEST,
    REFERENCE,
    Bundle,
    Format,
    Kind,
    Manifest,
    Requirements,
    Scheme,
    Signature,
    TensorSpec,
    Variant,
    file_entries,
    read_bundle,
)

ADD, FULLY_CONNECTED, SOFTMAX = 0, 9, 25
Arrays = Mapping[str, np.ndarray]


def write_dense(
    folder: Path,
    *,
    samples: Arrays,
    weights: Arrays,
    bias: np.ndarray,
    classifier: bool,
    specs: Mapping[str, Mapping[str, object]] | None = None,
    **changes: object,
) -> Bundle:
    """A bundle of one float32 variant. `samples` {input: [n, ...]} go into reference.npz with NumPy's own answers.

    `weights` {input: [values of a sample, outputs]}; `specs` {tensor: fields of its TensorSpec}; the output is `y`;
    `changes` are fields of the manifest.
    """
    folder.mkdir(parents=True)
    y = sum(x.reshape(len(x), -1) @ weights[name] for name, x in samples.items()) + bias
    y = _softmax(y) if classifier else y
    (folder / "float32.tflite").write_bytes(dense_tflite(samples, weights, bias, classifier))
    arrays = {**{f"in/{name}": x for name, x in samples.items()}, "out/y": y.astype(np.float32)}
    np.savez(folder / REFERENCE, **arrays)

    def spec(name: str, shape: tuple[int, ...]) -> TensorSpec:
        return TensorSpec(name, (None, *shape), "float32", **(specs or {}).get(name, {}))  # type: ignore[arg-type]

    signature = Signature(tuple(spec(name, x.shape[1:]) for name, x in samples.items()), (spec("y", bias.shape),))
    variant = Variant(
        "float32", "float32.tflite", ("float32.tflite",), Format.TFLITE, Scheme.FLOAT32, ("infer",),
        requires=Requirements(("litert", "litertjs")),
    )  # fmt: skip
    return _written(folder, signature, variant, **changes)


def tfjs_product(folder: Path, w: np.ndarray) -> Bundle:
    """y = x @ w as a TF.js graph model; `w` [inputs, outputs] float32."""
    (folder / "tfjs").mkdir(parents=True)
    of = {"type": "DT_FLOAT"}
    shape = {"dim": [{"size": str(size)} for size in w.shape]}
    free = {"shape": {"dim": [{"size": "-1"}, {"size": str(len(w))}]}}
    constant = {"dtype": of, "value": {"tensor": {"dtype": "DT_FLOAT", "tensorShape": shape}}}
    nodes = [
        {"name": "x", "op": "Placeholder", "attr": {"dtype": of, "shape": free}},
        {"name": "w", "op": "Const", "attr": constant},
        {"name": "y", "op": "MatMul", "input": ["x", "w"], "attr": {"T": of}},
    ]
    model = {
        "format": "graph-model",
        "modelTopology": {"node": nodes, "library": {}, "versions": {}},
        "signature": {"inputs": {"x": {"name": "x:0"}}, "outputs": {"y": {"name": "y:0"}}},
        "weightsManifest": [{"paths": ["w.bin"], "weights": [{"name": "w", "shape": w.shape, "dtype": "float32"}]}],
    }
    files = ("tfjs/model.json", "tfjs/w.bin")
    (folder / files[0]).write_text(json.dumps(model))
    (folder / files[1]).write_bytes(w.astype("<f4").tobytes())
    x = np.eye(len(w), dtype=np.float32)
    np.savez(folder / REFERENCE, **{"in/x": x, "out/y": w})
    specs = [TensorSpec(name, (None, size), "float32") for name, size in zip("xy", w.shape, strict=True)]
    variant = Variant(
        "tfjs", files[0], files, Format.TFJS, Scheme.FLOAT32, ("infer",), requires=Requirements(("tfjs",))
    )
    return _written(folder, Signature((specs[0],), (specs[1],)), variant)


def _written(folder: Path, signature: Signature, variant: Variant, **changes: object) -> Bundle:
    manifest = Manifest(
        name=folder.name,
        version=1,
        source={"file": "by-hand.keras", "format": "keras", "sha256": "0" * 64},
        files=file_entries(folder),
        signatures={"infer": signature},
        variants=(variant,),
    )
    (folder / MANIFEST).write_bytes(dataclasses.replace(manifest, **changes).to_bytes())  # type: ignore[arg-type]
    return read_bundle(folder)


def dense_tflite(samples: Arrays, weights: Arrays, bias: np.ndarray, classifier: bool) -> bytes:
    """The model as a .tflite of batch 1, with the signature `infer`."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description, model.buffers, graph.tensors = 3, "by hand", [schema.BufferT()], []
    codes = (FULLY_CONNECTED, ADD, SOFTMAX)
    model.operatorCodes = [_code(code) for code in codes]
    graph.operators = []

    def tensor(name: str, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), schema.TensorType.FLOAT32, 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = list(np.ascontiguousarray(data, "<f4").tobytes())
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(code: int, inputs: list[int], options: str) -> int:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs = codes.index(code), inputs
        made.outputs = [tensor(f"made{len(graph.operators)}", (1, *bias.shape))]
        made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        made.builtinOptions = getattr(schema, f"{options}T")()
        if code == SOFTMAX:
            made.builtinOptions.beta = 1.0
        graph.operators.append(made)
        return made.outputs[0]

    inputs = [tensor(name, (1, *x.shape[1:])) for name, x in samples.items()]
    total = -1
    for at, name in zip(inputs, samples, strict=True):
        kernel = tensor(f"W {name}", weights[name].T.shape, weights[name].T)
        b = tensor(f"b {name}", bias.shape, bias if total < 0 else np.zeros_like(bias))
        dense = operator(FULLY_CONNECTED, [at, kernel, b], "FullyConnectedOptions")
        total = dense if total < 0 else operator(ADD, [total, dense], "AddOptions")
    end = operator(SOFTMAX, [total], "SoftmaxOptions") if classifier else total
    graph.inputs, graph.outputs = inputs, [end]
    model.subgraphs, model.signatureDefs = [graph], [_signature(list(samples), inputs, end)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _code(code: int) -> schema.OperatorCodeT:
    made = schema.OperatorCodeT()
    made.builtinCode = made.deprecatedBuiltinCode = code
    made.version = 1
    return made


def _signature(names: list[str], inputs: list[int], output: int) -> schema.SignatureDefT:
    def named(name: str, tensor: int) -> schema.TensorMapT:
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name, tensor
        return made

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "infer", 0
    signature.inputs = [named(name, at) for name, at in zip(names, inputs, strict=True)]
    signature.outputs = [named("y", output)]
    return signature


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def digits(folder: Path, **changes: object) -> Bundle:
    """scikit-learn's handwritten digits, [n, 8, 8, 1] in 0..1, by a softmax regression."""
    images, weights, bias = _trained_digits()
    return write_dense(
        folder,
        samples={"image": images[:16]},
        weights={"image": weights},
        bias=bias,
        classifier=True,
        specs={"image": {"kind": Kind.IMAGE, "range": (0.0, 1.0), "layout": "NHWC"}},
        **changes,
    )


@functools.cache
def _trained_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, weights [64, 10] and bias [10]: gradient descent on the mean cross-entropy, 97% right after 300 steps."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = (data.images.reshape(-1, 64) / 16).astype(np.float32)
    target = np.eye(10, dtype=np.float32)[data.target]
    weights, bias = np.zeros((64, 10), np.float32), np.zeros(10, np.float32)
    for _ in range(300):
        error = (_softmax(x @ weights + bias) - target) / len(x)
        weights -= 2.0 * x.T @ error
        bias -= 2.0 * error.sum(0)
    return x.reshape(-1, 8, 8, 1), weights, bias


def photos(folder: Path, **changes: object) -> Bundle:
    """[n, 32, 48, 3] in 0..255: which of red, green and blue is strongest."""
    rng = np.random.default_rng(1)
    pure = np.eye(3, dtype=np.float32)[np.arange(12) % 3] * 180
    images = (pure[:, None, None] + rng.integers(0, 60, (12, 32, 48, 3))).astype(np.float32)
    mean = np.tile(np.eye(3, dtype=np.float32), (32 * 48, 1)) / (32 * 48 * 25)  # mean over the pixels, in steps of 25
    return write_dense(
        folder,
        samples={"photo": images},
        weights={"photo": mean},
        bias=np.zeros(3, np.float32),
        classifier=True,
        specs={
            "photo": {"kind": Kind.IMAGE, "range": (0.0, 255.0), "layout": "NHWC"},
            "y": {"labels": ("red", "green", "blue")},
        },
        **changes,
    )


def tables(folder: Path, **changes: object) -> Bundle:
    """Two tabular inputs and two predicted values: y = house @ W + place @ V + b, by hand."""
    return write_dense(
        folder,
        samples={
            "house": np.array([[2.0, 100.0, 1.0], [4.0, 150.0, 0.0], [1.0, 40.0, 1.0]], np.float32),
            "place": np.array([[0.5, 3.0], [0.25, 8.0], [1.0, 1.0]], np.float32),
        },
        weights={
            "house": np.array([[1.0, 10.0], [2.0, 0.5], [-4.0, 0.0]], np.float32),
            "place": np.array([[8.0, 4.0], [-1.0, 0.0]], np.float32),
        },
        bias=np.array([0.5, -1.0], np.float32),
        classifier=False,
        specs={
            "house": {"kind": Kind.TABULAR, "labels": ("rooms", "area", "attic")},
            "place": {"kind": Kind.TABULAR, "labels": ("green", "distance")},
        },
        **changes,
    )


def sounds(folder: Path, **changes: object) -> Bundle:
    """Half a second at 8 kHz: whether 440 or 880 Hz is in it, by a sine of each as weights."""
    t = np.arange(4000, dtype=np.float32) / 8000
    tones = np.stack([np.sin(2 * np.pi * f * t) for f in (440, 880)]).astype(np.float32)
    return write_dense(
        folder,
        samples={"sound": np.concatenate([tones, 0.5 * tones])},
        weights={"sound": (tones.T / 200).astype(np.float32)},
        bias=np.zeros(2, np.float32),
        classifier=True,
        specs={
            "sound": {"kind": Kind.AUDIO, "range": (-1.0, 1.0), "sample_rate_hz": 8000},
            "y": {"labels": ("a", "a'")},
        },
        **changes,
    )


def tokens(folder: Path, **changes: object) -> Bundle:
    """A sequence of 12 numbers of kind tokens."""
    ids = np.arange(48, dtype=np.float32).reshape(4, 12) % 7
    weights = np.stack([np.arange(12), 11 - np.arange(12)], axis=1).astype(np.float32) / 50
    return write_dense(
        folder,
        samples={"ids": ids},
        weights={"ids": weights},
        bias=np.zeros(2, np.float32),
        classifier=True,
        specs={"ids": {"kind": Kind.TOKENS}, "y": {"labels": ("no", "yes")}},
        **changes,
    )


def calls(folder: Path) -> Bundle:
    """`tables` as a model without a batch axis: house [any, 3] and place [any, 2] in one call, y [any, 2]."""
    made = tables(folder)
    arrays = {
        name: array[:, None] for name, array in np.load(folder / REFERENCE).items()
    }  # the first axis counts calls
    np.savez(folder / REFERENCE, **arrays)
    manifest = dataclasses.replace(made.manifest, files=file_entries(folder))
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    return read_bundle(folder)


if __name__ == "__main__":
    import sys

    for make in (digits, photos, tables, sounds, tokens, calls):
        make(Path(sys.argv[1]) / make.__name__)
