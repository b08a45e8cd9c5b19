"""Model files that no honest tool wrote, made by hand and without a framework; and small honest ones to mutate.

`HOSTILE` names every malformed file that the product must answer with one clear error.
"""

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden" / "bundle-1"
CRC_OF_ZEROS = {256: 0x2A0E7DBB, 1024: 0x5B64C2B0}  # by MiB


# Protobuf, https://protobuf.dev/programming-guides/encoding/


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


# A SavedModel of nodes and functions


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    """A NodeDef; each attribute is a whole AttrValue."""
    parts = [field(1, name), field(2, op), *(field(3, i) for i in inputs)]
    parts += [field(5, field(1, key) + field(2, value)) for key, value in attributes.items()]
    return b"".join(parts)


def calls(function: str, inner: bytes = b"") -> bytes:
    """An AttrValue that names a function, whose own attribute may name another."""
    return field(10, field(1, function) + (field(2, field(1, "g") + field(2, inner)) if inner else b""))


def text_attribute(value: str) -> bytes:
    return field(2, value)


def constant(values: np.ndarray, shape: tuple[int, ...] | None = None, kind: int = 1) -> bytes:
    """An AttrValue with a TensorProto."""
    sizes = b"".join(field(2, field(1, size)) for size in (values.shape if shape is None else shape))
    return field(8, field(1, kind) + field(2, sizes) + field(4, values.tobytes()))


def function(name: str, *nodes: bytes) -> bytes:
    return field(1, field(1, name)) + b"".join(field(3, n) for n in nodes)


def saver(restore: str = "restore") -> bytes:
    return field(1, "saver_filename:0") + field(2, "save:0") + field(3, restore)


def _variable(name: str, *sizes: int) -> bytes:
    """A SavedVariable of float32."""
    return field(1, 1) + field(2, b"".join(field(2, field(1, size)) for size in sizes)) + field(6, name)


SAVER_NODES = (
    node("saver_filename", "Placeholder"),
    node("save", "StatefulPartitionedCall", "saver_filename", f=calls("__inference__traced_save_1")),
    node("restore", "StatefulPartitionedCall", "saver_filename", f=calls("__inference__traced_restore_2")),
)
SAVER_FUNCTIONS = (
    function(
        "__inference__traced_save_1",
        node("s", "ShardedFilename"),
        node("w", "SaveV2", "s"),
        node("m", "MergeV2Checkpoints"),
    ),
    function("__inference__traced_restore_2", node("r", "RestoreV2", "file_prefix")),
)


def saved_model(
    folder: Path,
    *,
    nodes: tuple[bytes, ...] = (),
    functions: tuple[bytes, ...] = (),
    served: str = "serve",
    saver: bytes = saver(),
    extra: bytes = b"",
) -> Path:
    """What tf.saved_model.save writes, with more nodes and functions; the signature calls the function `served`."""
    honest = (node("x", "Placeholder"), node("y", "PartitionedCall", "x", f=calls(served)))
    graph = b"".join(field(1, n) for n in (*honest, *SAVER_NODES, *nodes))
    serve = function("serve", node("relu", "Relu", "x"))
    graph += field(2, b"".join(field(1, f) for f in (serve, *SAVER_FUNCTIONS, *functions)))
    side = [field(n, field(1, key) + field(2, field(1, f"{key}:0") + field(2, 1))) for n, key in ((1, "x"), (2, "y"))]
    signature = field(1, "serving_default") + field(2, b"".join(side))
    objects = field(1, field(8, field(1, served)))
    meta = field(2, graph) + field(3, saver) + field(5, signature) + field(7, objects) + extra
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(field(1, 1) + field(2, meta))
    return folder


def _with_op(op: str, **attributes: bytes) -> Callable[[Path], Path]:
    made = function("helper", node("n", op, **attributes))
    return lambda folder: saved_model(folder / "m", functions=(made,), served="helper")


def _saved_model_with(file: str, data: bytes = b"x") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = saved_model(folder / "m")
        (path / file).write_bytes(data)
        return path

    return make


def _saved_model_link(folder: Path) -> Path:
    path = saved_model(folder / "m")
    (path / "variables").symlink_to("/etc")
    return path


# .keras and .h5


def layer(kind: str, name: str, **config: object) -> dict:
    return {"class_name": kind, "config": {"name": name, **config}}


def config(*layers: dict) -> dict:
    return layer("Sequential", "m", layers=[layer("Dense", "d", units=1), *layers])


def keras_file(path: Path, model: dict, entries: dict[str, bytes] | None = None, method: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        for name, data in (entries or {}).items():
            archive.writestr(name, data)
    return path


def h5_file(path: Path, model: dict | None, **datasets: object) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        if model is not None:
            file.attrs["model_config"] = json.dumps(model)
        for name, options in datasets.items():
            if isinstance(options, h5py.ExternalLink):
                file[name] = options
            else:
                file.create_dataset(name, **options)
    return path


def _zeros(mib: int) -> bytes:
    """That many MiB of zeros, deflated: one MiB that ends on a byte, over and over."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    one = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return one * mib + packer.flush()


def zip_bomb(path: Path, entries: int = 1) -> Path:
    """A .keras file that unpacks to 1 GiB: from 1 MB, or from 262 kB when four entries share the bytes (Fifield 2019,
    https://www.usenix.org/conference/woot19/presentation/fifield).
    """
    mib = 1024 // entries
    text, packed, crc = json.dumps(config()).encode(), _zeros(mib), CRC_OF_ZEROS[mib]
    first = _local("config.json", text, 0, zlib.crc32(text), len(text)) + text
    body = first + _local("w0", packed, 8, crc, mib << 20) + packed
    central = _central("config.json", text, 0, zlib.crc32(text), len(text), 0)
    for i in range(entries):
        central += _central(f"w{i}", packed, 8, crc, mib << 20, len(first))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, entries + 1, entries + 1, len(central), len(body), 0)
    return _write(path, body + central + end)


def _local(name: str, packed: bytes, method: int, crc: int, size: int) -> bytes:
    head = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, method, 0, 33, crc, len(packed), size, len(name), 0)
    return head + name.encode()


def _central(name: str, packed: bytes, method: int, crc: int, size: int, at: int) -> bytes:
    parts = (b"PK\1\2", 20, 20, 0, method, 0, 33, crc, len(packed), size, len(name), 0, 0, 0, 0, 0, at)
    return struct.pack("<4s6H3I5H2I", *parts) + name.encode()


def _link_entry(folder: Path) -> Path:
    path = keras_file(folder / "m.keras", config())
    entry = zipfile.ZipInfo("assets/passwd")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, "/etc/passwd")
    return path


def _twice(folder: Path) -> Path:
    path = keras_file(folder / "m.keras", config(), {"config.jsom": json.dumps(config(layer("Lambda", "l"))).encode()})
    path.write_bytes(path.read_bytes().replace(b"config.jsom", b"config.json"))
    return path


def _keras(*layers: dict) -> Callable[[Path], Path]:
    return lambda folder: keras_file(folder / "m.keras", config(*layers))


def _slip(name: str) -> Callable[[Path], Path]:
    return lambda folder: keras_file(folder / "m.keras", config(), {name: b"x"})


def _h5_and_zip(folder: Path) -> Path:
    """HDF5 to who looks at the first bytes, a zip with a Lambda to who looks at the last."""
    code = keras_file(folder / "code.keras", config(layer("Lambda", "l")))
    return _write(folder / "m.keras", h5_file(folder / "m.h5", config()).read_bytes() + code.read_bytes())


def _zip_and_h5(folder: Path) -> Path:
    """A zip to who looks at the first and last bytes; to HDF5 a file with a Lambda that begins at byte 512."""
    start = len(_local("h5", b"", 0, 0, 0))
    code = h5_file(folder / "code.h5", config(layer("Lambda", "l"))).read_bytes()
    path = folder / "m.h5"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("h5", bytes(512 - start) + code)
        archive.writestr("config.json", json.dumps(config()))
    return path


def _long_directory(folder: Path) -> Path:
    """A zip that says of its directory that it has 64 MiB."""
    data = keras_file(folder / "m.keras", config()).read_bytes()
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, 64 << 20, 0, 0)
    return _write(folder / "n.keras", data + bytes(64 << 20) + end)


def _h5_external(folder: Path) -> Path:
    (folder / "secret").write_bytes(bytes(64))
    return h5_file(folder / "m.h5", config(), w={"shape": (4,), "dtype": "f4", "external": [("secret", 0, 16)]})


def _h5_link(folder: Path) -> Path:
    import h5py

    return h5_file(folder / "m.h5", config(), w=h5py.ExternalLink("/etc/passwd", "/w"))


def _h5_bomb(folder: Path) -> Path:
    return h5_file(folder / "m.h5", config(), w={"shape": (1 << 28,), "dtype": "f4", "chunks": (1 << 20,)})


# .tflite


def tflite(change: Callable[[object], None] | None = None, file: str = "float32.tflite") -> bytes:
    """The golden model x @ W with `change` made to its object tree (the generated `ModelT`)."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytearray((GOLDEN / file).read_bytes()), 0)
    if change is not None:
        change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _weights(model: object) -> object:
    """The float32 tensor with data."""
    tensors = model.subgraphs[0].tensors
    return next(t for t in tensors if t.type == 0 and model.buffers[t.buffer].data is not None)


def _scaled(model: object) -> object:
    return next(t for t in model.subgraphs[0].tensors if t.quantization and t.quantization.scale is not None)


def _tflite(change: Callable[[object], None], file: str = "float32.tflite") -> Callable[[Path], Path]:
    return lambda folder: _write(folder / "m.tflite", tflite(change, file))


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _set_weight(value: float) -> Callable[[object], None]:
    def change(model: object) -> None:
        buffer = model.buffers[_weights(model).buffer]
        values = np.array(buffer.data, np.uint8).view(np.float32)
        values[0] = value
        buffer.data = values.view(np.uint8)

    return change


def _set_scale(value: float) -> Callable[[object], None]:
    def change(model: object) -> None:
        _scaled(model).quantization.scale[0] = value

    return change


def _set_shape(*sizes: int) -> Callable[[object], None]:
    def change(model: object) -> None:
        graph = model.subgraphs[0]
        tensor = graph.tensors[graph.inputs[0]]
        tensor.shape, tensor.shapeSignature = list(sizes), None

    return change


def _set_custom(name: str) -> Callable[[object], None]:
    def change(model: object) -> None:
        code = model.operatorCodes[0]
        code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, name

    return change


def _set_input_index(model: object) -> None:
    model.subgraphs[0].operators[0].inputs[0] = 4096


def _set_signature_index(model: object) -> None:
    model.signatureDefs[0].inputs[0].tensorIndex = 999


def _set_buffer(model: object) -> None:
    model.subgraphs[0].tensors[0].buffer = 999


def _set_offset(model: object) -> None:
    buffer = model.buffers[_weights(model).buffer]
    buffer.data, buffer.offset, buffer.size = None, 1 << 20, 16


def _add_scales(model: object) -> None:
    quantization = _scaled(model).quantization
    quantization.scale, quantization.zeroPoint = [0.5] * 7, [0] * 7


def _drop_weight_bytes(model: object) -> None:
    buffer = model.buffers[_weights(model).buffer]
    buffer.data = buffer.data[:-4]


def aliased_tflite() -> bytes:
    """60 kB in which 15,000 graphs are one and the same: reading each would take 15,000 times as long."""
    from ai_edge_litert import schema_py_generated as schema

    data, count = tflite(), 15_000
    root = schema.Model.GetRootAs(data, 0)._tab
    pointer = root.Pos + root.Offset(8)  # Model.subgraphs
    graph = root.Indirect(root.Vector(root.Offset(8)))
    start = len(data) + 4 + 4 * count  # offsets point forward: the graph they share is that of a second copy
    offsets = [start + graph - (len(data) + 4 + 4 * i) for i in range(count)]
    head = data[:pointer] + struct.pack("<I", len(data) - pointer) + data[pointer + 4 :]
    return head + struct.pack(f"<I{count}I", count, *offsets) + data


# .onnx


def onnx(*tensors: bytes, nested: bool = False) -> bytes:
    """y = x + w with `tensors` as initializers; `nested` puts them into a graph inside a function's node."""
    body = b"".join(field(5, t) for t in tensors)
    graph = field(1, field(1, "x") + field(1, "w") + field(2, "y") + field(4, "Add")) + field(2, "g")
    ends = [field(n, field(1, name) + field(2, field(1, field(1, 1)))) for n, name in ((11, "x"), (12, "y"))]
    graph += b"".join(ends) + (b"" if nested else body)
    inner = field(25, field(1, "f") + field(7, field(4, "If") + field(5, field(1, "then_branch") + field(6, body))))
    return field(1, 8) + field(2, "test") + field(7, graph) + field(8, field(2, 17)) + (inner if nested else b"")


def onnx_tensor(sizes: tuple[int, ...] = (1,), raw: bytes | None = None, **external: str) -> bytes:
    parts = [*(field(1, size) for size in sizes), field(2, 1), field(8, "w")]
    parts += [field(9, raw)] if raw is not None else []
    parts += [field(13, field(1, key) + field(2, value)) for key, value in external.items()]
    return b"".join(parts) + (field(14, 1) if external else b"")


def _onnx(*tensors: bytes, nested: bool = False) -> Callable[[Path], Path]:
    return lambda folder: _write(folder / "m.onnx", onnx(*tensors, nested=nested))


def _onnx_link(folder: Path) -> Path:
    (folder / "w.bin").symlink_to("/etc/passwd")
    return _onnx(onnx_tensor(location="w.bin"))(folder)


# TF.js


def tfjs(folder: Path, *nodes: dict, paths: object = ("w.bin",), data: bytes | None = None, **topology: object) -> Path:
    """A graph model y = x + w with w of [2], and whatever else; its weights lie in w.bin."""
    ends = [
        {
            "name": "x",
            "op": "Placeholder",
            "attr": {"dtype": {"type": "DT_FLOAT"}, "shape": {"shape": {"dim": [{"size": "-1"}, {"size": "2"}]}}},
        },
        {
            "name": "w",
            "op": "Const",
            "attr": {"dtype": {"type": "DT_FLOAT"}, "value": {"tensor": {"dtype": "DT_FLOAT"}}},
        },
        {"name": "y", "op": "AddV2", "input": ["x", "w"], "attr": {"T": {"type": "DT_FLOAT"}}},
    ]
    manifest = [{"paths": list(paths), "weights": [{"name": "w", "shape": [2], "dtype": "float32"}]}]
    folder.mkdir(exist_ok=True)
    (folder / "w.bin").write_bytes(np.float32([3, 4]).tobytes() if data is None else data)
    model = {"modelTopology": {"node": [*ends, *nodes], **topology}, "weightsManifest": manifest}
    return _write(folder / "model.json", json.dumps(model).encode())


def _tfjs(*nodes: dict, **other: object) -> Callable[[Path], Path]:
    return lambda folder: tfjs(folder, *nodes, **other)


def _tfjs_link(folder: Path) -> Path:
    path = tfjs(folder)
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to("/etc/passwd")
    return path


def _tfjs_layers(folder: Path) -> Path:
    model = {"modelTopology": {"model_config": config(layer("Lambda", "f"))}, "weightsManifest": []}
    return _write(folder / "model.json", json.dumps(model).encode())


def _hold_in_tflite(folder: Path, values: np.ndarray) -> Path:
    from ai_edge_litert import schema_py_generated as schema

    def change(model: object) -> None:
        tensor, buffer = schema.TensorT(), schema.BufferT()
        tensor.name, tensor.shape, tensor.buffer = "w", list(values.shape), len(model.buffers)
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        model.buffers.append(buffer)
        model.subgraphs[0].tensors.append(tensor)

    folder.mkdir()
    return _tflite(change)(folder)


def _hold_in_onnx(folder: Path, values: np.ndarray) -> Path:
    folder.mkdir()
    return _onnx(onnx_tensor(values.shape, values.tobytes()))(folder)


def _hold_in_tfjs(folder: Path, values: np.ndarray) -> Path:
    path = tfjs(folder, data=values.tobytes())
    model = json.loads(path.read_bytes())
    model["weightsManifest"][0]["weights"][0]["shape"] = list(values.shape)
    return _write(path, json.dumps(model).encode())


# how each kind of file holds a tensor "w" of float32 in the folder that is made for it
HOLDERS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "tflite": _hold_in_tflite,
    "onnx": _hold_in_onnx,
    "tfjs": _hold_in_tfjs,
    "savedmodel": lambda folder, values: saved_model(folder, nodes=(node("w", "Const", value=constant(values)),)),
}
HUGE = {"tensor": {"dtype": "DT_FLOAT", "tensorShape": {"dim": [{"size": "1048576"}, {"size": "1048576"}]}}}


def _file(name: str, data: bytes) -> Callable[[Path], Path]:
    return lambda folder: _write(folder / name, data)


def _folder(folder: Path) -> Path:
    (folder / "m").mkdir()
    return folder / "m"


ONE = np.float32(1).tobytes()
NAN = np.float32("nan").tobytes()
IDENTIFIER = b"\x1c\0\0\0TFL9" + bytes(64)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"

# what it is: (how to make it in a folder, what the error says)
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda folder: folder / "m.keras", "does not exist"),
    "an empty file": (_file("m.tflite", b""), "is an empty file"),
    "an empty folder": (_folder, "is an empty folder"),
    "an HTML page": (_file("m.tflite", b"<!DOCTYPE html><html>404</html>"), "is an HTML page"),
    "a git-lfs pointer": (_file("m.h5", LFS), "is a git-lfs pointer"),
    "text": (_file("m.keras", b"hello"), "is a text file"),
    "another identifier": (_file("m.tflite", IDENTIFIER), "is a file of another format"),
    "a cut .tflite": (lambda f: _write(f / "m.tflite", tflite()[:600]), "is a damaged .tflite file"),
    "a cut .onnx": (lambda f: _write(f / "m.onnx", onnx(onnx_tensor(raw=ONE))[:-20]), "is a damaged .onnx file"),
    "a cut .keras": (lambda f: _write(f / "m.keras", _slip("w")(f).read_bytes()[:-30]), "is a damaged keras model"),
    "a cut .h5": (
        lambda f: _write(f / "n.h5", h5_file(f / "m.h5", config()).read_bytes()[:900]),
        "damaged keras model",
    ),
    "a cut saved_model.pb": (
        lambda f: _write(saved_model(f / "m") / "saved_model.pb", b"\x12\x7fxx").parent,
        "is a damaged savedmodel model",
    ),
    ".tflite: an operator that names no tensor": (_tflite(_set_input_index), "names a tensor that is not there"),
    ".tflite: a huge shape": (_tflite(_set_shape(1 << 20, 1 << 20)), r"has 4398046511104 bytes, the limit is"),
    ".tflite: a negative shape": (_tflite(_set_shape(1, -4)), r"has the shape \[1, -4\]"),
    ".tflite: a zero shape": (_tflite(_set_shape(0, 2)), r"has the shape \[0, 2\], which holds no value"),
    ".tflite: scale 0": (_tflite(_set_scale(0.0), "int8.tflite"), "has the scale 0.0"),
    ".tflite: scale NaN": (_tflite(_set_scale(np.nan), "int8.tflite"), "has the scale nan"),
    ".tflite: NaN weights": (_tflite(_set_weight(np.nan)), "the weight .* holds 1 NaN among"),
    ".tflite: infinite weights": (_tflite(_set_weight(np.inf)), "holds 1 infinite numbers among"),
    ".tflite: too few weights": (_tflite(_drop_weight_bytes), r"bytes, expected \d+"),
    ".tflite: a custom operator": (_tflite(_set_custom("mine")), "has the custom operators mine"),
    ".tflite: an operator of TensorFlow": (_tflite(_set_custom("FlexWriteFile")), r"for WriteFile \(Flex operators\)"),
    ".tflite: one graph 15,000 times": (
        lambda f: _write(f / "m.tflite", aliased_tflite()),
        "more to read than such a file holds",
    ),
    ".keras: 1 MB that grows to 1 GB": (lambda f: zip_bomb(f / "m.keras"), "unpacks 'w0' from .* to 1073741824 bytes"),
    ".keras: 262 kB that grow to 1 GB": (
        lambda f: zip_bomb(f / "m.keras", 4),
        "unpacks 'w0' from .* to 268435456 bytes",
    ),
    ".keras: a slip": (_slip("../../evil"), "holds the path '../../evil', which leads out of the file"),
    ".keras: an absolute path": (_slip("/tmp/evil"), "holds the path '/tmp/evil'"),
    ".keras: a slip for Windows": (_slip("..\\evil"), "which leads out of the file"),
    ".keras: a link": (_link_entry, "holds the link 'assets/passwd'"),
    ".keras: two configs": (_twice, "holds 'config.json' twice"),
    ".keras: no config": (
        lambda f: _write(f / "m.keras", _slip("w")(f).read_bytes().replace(b"config.json", b"cinfog.json")),
        "without config.json",
    ),
    ".keras: Lambda": (_keras(layer("Lambda", "evil")), "has the Lambda layer 'evil', which is Python code"),
    ".keras: Lambda in a wrapper": (
        _keras(layer("TimeDistributed", "t", layer=layer("Lambda", "evil"))),
        "has the Lambda layer 'evil'",
    ),
    ".keras: a module to import": (
        _keras({"module": "os", "class_name": "function", "config": "system"}),
        "has 'system' of the module 'os'",
    ),
    ".keras: a downloader": (
        _keras({"module": "keras.utils", "class_name": "function", "config": "get_file"}),
        "has 'get_file' of the module 'keras.utils'",
    ),
    ".keras: a vocabulary file": (
        _keras(layer("StringLookup", "s", vocabulary="/etc/passwd")),
        r"has the layer 's' \(StringLookup\), which reads the file '/etc/passwd'",
    ),
    ".keras: a SavedModel from a path": (_keras(layer("TFSMLayer", "s", filepath="/x")), "loads a SavedModel from a"),
    ".h5: Lambda": (lambda f: h5_file(f / "m.h5", config(layer("Lambda", "evil"))), "has the Lambda layer 'evil'"),
    ".h5: tf.io": (
        lambda f: h5_file(f / "m.h5", config(layer("TFOpLambda", "t", function="io.write_file"))),
        "has the layer 't', which calls tf.io.write_file",
    ),
    ".h5: weights alone": (lambda f: h5_file(f / "m.h5", None), "holds weights but no model"),
    ".h5: data in another file": (_h5_external, "keeps the data of '/w' in another file"),
    ".h5: a link to another file": (_h5_link, "links 'w' to another file, '/etc/passwd'"),
    ".h5: a bomb": (_h5_bomb, r"of shape \[268435456\] grows from 0 to 1073741824 bytes"),
    "SavedModel: writes a file": (
        _with_op("WriteFile"),
        "the operation WriteFile in the function 'helper', which writes",
    ),
    "SavedModel: reads a file": (_with_op("ReadFile"), "the operation ReadFile in the function 'helper', which reads"),
    "SavedModel: prints to a file": (
        _with_op("PrintV2", output_stream=text_attribute("file:///tmp/x")),
        "PrintV2 in the function 'helper', which writes files",
    ),
    "SavedModel: Python": (_with_op("EagerPyFunc"), "EagerPyFunc .* runs code that the graph does not show"),
    "SavedModel: a table of a file": (_with_op("InitializeTableFromTextFileV2"), "InitializeTableFromTextFileV2 in"),
    "SavedModel: a dataset of files": (_with_op("TFRecordDatasetV2"), "TFRecordDatasetV2 in the function 'helper'"),
    "SavedModel: an op in the main graph": (
        lambda f: saved_model(f / "m", nodes=(node("evil", "WriteFile"),)),
        "WriteFile in the graph, as 'evil'",
    ),
    "SavedModel: an op in a function that nothing names": (
        lambda f: saved_model(f / "m", functions=(function("hidden", node("n", "ReadFile")),)),
        "ReadFile in the function 'hidden'",
    ),
    "SavedModel: saves, and not as the saver": (
        _with_op("SaveV2"),
        "SaveV2 in the function 'helper', which writes files",
    ),
    "SavedModel: the saver's function served": (
        lambda f: saved_model(f / "m", served="__inference__traced_save_1"),
        "SaveV2 in the function '__inference__traced_save_1', which writes files, and not as the saver's own",
    ),
    "SavedModel: the saver's function in an attribute of a call": (
        lambda f: saved_model(
            f / "m",
            functions=(function("helper", node("n", "If", t=calls("serve", calls("__inference__traced_save_1")))),),
            served="helper",
        ),
        "SaveV2 in the function '__inference__traced_save_1'",
    ),
    "SavedModel: restoring writes": (
        lambda f: saved_model(f / "m", saver=saver(restore="save")),
        "SaveV2 in the function",
    ),
    "SavedModel: restores from a path of its own": (
        lambda f: saved_model(
            f / "m",
            nodes=(node("path", "Const"), node("r", "RestoreV2", "path"), node("all", "NoOp", "^r")),
            saver=saver(restore="all"),
        ),
        "RestoreV2 in the graph, as 'r', which reads files",
    ),
    "SavedModel: an asset outside": (
        lambda f: saved_model(f / "m", extra=field(6, field(2, "../../etc/passwd"))),
        "names the asset '../../etc/passwd'",
    ),
    "SavedModel: a link out": (_saved_model_link, "variables is a link to a file outside the model"),
    "SavedModel: a second graph": (_saved_model_with("saved_model.cpb"), "holds saved_model.cpb beside saved_model.pb"),
    "SavedModel: NaN weights": (
        lambda f: saved_model(f / "m", nodes=(node("w", "Const", value=constant(np.float32([1, np.nan]))),)),
        "the weight 'w' holds 1 NaN among 2",
    ),
    "SavedModel: a huge constant": (
        lambda f: saved_model(
            f / "m", nodes=(node("w", "Const", value=constant(np.float32([0]), (1 << 16, 1 << 16))),)
        ),
        r"the tensor 'w' of shape \[65536, 65536\] has 17179869184 bytes",
    ),
    ".onnx: data above its folder": (
        _onnx(onnx_tensor(location="../w.bin")),
        "keeps the tensor 'w' in '../w.bin', which leads out of its folder",
    ),
    ".onnx: data at an absolute path": (
        _onnx(onnx_tensor(location="/etc/passwd")),
        "in '/etc/passwd', which leads out",
    ),
    ".onnx: data behind a link": (_onnx_link, "in 'w.bin', a link to a file outside"),
    ".onnx: data that is not there": (_onnx(onnx_tensor(location="w.bin")), "in 'w.bin', which does not exist"),
    ".onnx: data outside, in a graph of a function": (
        _onnx(onnx_tensor(location="../w.bin"), nested=True),
        "in '../w.bin', which leads out of its folder",
    ),
    ".onnx: a negative shape": (_onnx(onnx_tensor((-1,), ONE)), r"has the shape \[-1\]"),
    ".onnx: a huge shape": (_onnx(onnx_tensor((1 << 20, 1 << 20), ONE)), r"has 4398046511104 bytes, the limit is"),
    ".onnx: too few weights": (_onnx(onnx_tensor((2,), ONE)), "holds 4 bytes, expected 8"),
    ".onnx: NaN weights": (_onnx(onnx_tensor((2,), ONE + NAN)), "the weight 'w' holds 1 NaN among 2"),
}

HOSTILE |= {
    ".tflite: a signature that names no tensor": (_tflite(_set_signature_index), "a signature names a tensor that is"),
    ".tflite: a buffer that is not there": (_tflite(_set_buffer), "names the buffer 999 of"),
    ".tflite: data beyond the file": (_tflite(_set_offset), "lies at byte 1048576, beyond the file"),
    ".tflite: scales that fit no dimension": (_tflite(_add_scales, "int8.tflite"), "has 7 scales along dimension"),
    ".keras: HDF5 and zip at once": (_h5_and_zip, "is an HDF5 file and a zip file at once"),
    ".h5: a zip": (_zip_and_h5, "is a zip file that is not named .keras. Rename it"),
    ".keras: a directory of 64 MiB": (_long_directory, "a zip with a directory of more than 4194304 bytes"),
    ".keras: packed as bzip2": (
        lambda f: keras_file(f / "m.keras", config(), method=zipfile.ZIP_BZIP2),
        "packs 'config.json' with method 12",
    ),
    ".keras: eval": (
        _keras({"module": "builtins", "class_name": "function", "config": "eval"}),
        "has Python's own 'eval'",
    ),
    ".h5: tf.print": (
        lambda f: h5_file(f / "m.h5", config(layer("TFOpLambda", "t", function="print"))),
        "has the layer 't', which calls tf.print",
    ),
    "SavedModel: saves in a function that nothing names": (
        lambda f: saved_model(f / "m", functions=(function("hidden", node("n", "SaveV2")),)),
        "SaveV2 in the function 'hidden'",
    ),
    "SavedModel: the saver's function as an operation": (
        lambda f: saved_model(
            f / "m", functions=(function("helper", node("n", "__inference__traced_save_1")),), served="helper"
        ),
        "SaveV2 in the function '__inference__traced_save_1'",
    ),
    "SavedModel: the saver's function as a method": (
        lambda f: saved_model(f / "m", extra=field(7, field(1, field(6, field(1, "__inference__traced_save_1"))))),
        "SaveV2 in the function '__inference__traced_save_1'",
    ),
    "SavedModel: a huge variable": (
        lambda f: saved_model(f / "m", extra=field(7, field(1, field(7, _variable("w", 1 << 20, 1 << 20))))),
        r"the tensor 'w' of shape \[1048576, 1048576\] has 4398046511104 bytes",
    ),
    ".onnx: data of another length": (
        lambda f: (_write(f / "w.bin", bytes(64)), _onnx(onnx_tensor((2,), location="w.bin", length="4"))(f))[1],
        "the tensor 'w' of 8 bytes at 0, 4 bytes long",
    ),
    "TF.js: weights above the folder": (
        _tfjs(paths=["../w.bin"]),
        "keeps weights in '../w.bin', and they must lie beside",
    ),
    "TF.js: weights at an absolute path": (_tfjs(paths=["/etc/passwd"]), "keeps weights in '/etc/passwd'"),
    "TF.js: weights elsewhere": (_tfjs(paths=["https://host/w.bin"]), "keeps weights in 'https://host/w.bin'"),
    "TF.js: weights that are no path": (_tfjs(paths=[1]), "keeps weights in 1"),
    "TF.js: weights behind a link": (_tfjs_link, "is a link to a file outside"),
    "TF.js: weights that are not there": (_tfjs(paths=["v.bin"]), "keeps weights in 'v.bin', which is not there"),
    "TF.js: too few weights": (_tfjs(data=ONE), "ends at byte 8 of 4"),
    "TF.js: too many weights": (_tfjs(data=ONE * 3), "hold 12 bytes, its weights need 8"),
    "TF.js: NaN weights": (_tfjs(data=ONE + NAN), "the weight 'w' holds 1 NaN among 2"),
    "TF.js: no topology": (_file("model.json", b'{"modelTopology": 3}'), "is a damaged tfjs model"),
    "TF.js: cut": (lambda f: _write(f / "model.json", tfjs(f).read_bytes()[:-9]), "is a damaged tfjs model"),
    "TF.js: nested without end": (
        _file("model.json", b'{"modelTopology": ' + b"[" * 100_000),
        "is a damaged tfjs model",
    ),
    "TF.js: an operation that reads files": (
        _tfjs({"name": "r", "op": "ReadFile", "input": ["x"]}),
        "has the operation ReadFile in its graph, as 'r', which reads files",
    ),
    "TF.js: the same in a function": (
        _tfjs(library={"function": [{"node_def": [{"name": "r", "op": "WriteFile"}]}]}),
        "has the operation WriteFile",
    ),
    "TF.js: printing into a file": (
        _tfjs(
            {"name": "p", "op": "PrintV2", "attr": {"output_stream": {"s": "ZmlsZTovLy90bXAveA=="}}}
        ),  # file:///tmp/x
        "has the operation PrintV2",
    ),
    "TF.js: printing elsewhere, in the other alphabet of base64": (
        # protobuf reads ff ff ff before "stderr"; who drops what is not of the first alphabet reads "stderr" alone
        _tfjs({"name": "p", "op": "PrintV2", "attr": {"output_stream": {"s": "____c3RkZXJy"}}}),
        "has the operation PrintV2",
    ),
    "TF.js: a huge constant": (
        _tfjs({"name": "c", "op": "Const", "attr": {"value": HUGE}}),
        r"the constant 'c' has the shape \[1048576, 1048576\]",
    ),
    "TF.js: a Lambda layer": (_tfjs_layers, "has the Lambda layer 'f', which is Python code"),
    ".onnx: sparse data outside": (
        lambda f: _write(f / "m.onnx", onnx() + field(7, field(15, field(1, onnx_tensor(location="/etc/passwd"))))),
        "in '/etc/passwd', which leads out",
    ),
}

# samples for a model that takes x [n, 2] float32, and what the error says
BAD_SAMPLES: dict[str, tuple[np.ndarray, str]] = {
    "another dtype": (np.zeros((20, 2), np.uint8), "x is uint8, and the model takes float32"),
    "text": (np.array([["a", "b"]] * 20), "x is <U1, and the model takes float32"),
    "another shape": (np.zeros((20, 5), np.float32), r"shape \[20, 5\], and the model takes \[n, 2\]"),
    "another rank": (np.zeros((20,), np.float32), r"shape \[20\], and the model takes \[n, 2\]"),
    "no samples": (np.zeros((0, 2), np.float32), "at least one"),
    "NaN": (np.full((20, 2), np.nan, np.float32), "holds NaN, infinity"),
    "infinity": (np.full((20, 2), np.inf, np.float32), "holds NaN, infinity"),
}


def honest(folder: Path) -> dict[str, Path]:
    """One small file of each kind that passes, to be mutated. The .h5 and the SavedModel are not for a loader."""
    weights = h5_file(folder / "weights.h5", None, w={"data": np.ones((3, 2), np.float32)}).read_bytes()
    (folder / "w.bin").write_bytes(ONE * 4)
    outside = onnx_tensor((2,), location="w.bin", offset="8", length="8")
    return {
        "tflite": _write(folder / "m.tflite", tflite()),
        "int8 tflite": _write(folder / "q.tflite", tflite(file="int8.tflite")),
        "onnx": _write(folder / "m.onnx", (GOLDEN / "model.onnx").read_bytes()),
        "onnx with data beside it": _write(folder / "e.onnx", onnx(onnx_tensor((1,), ONE), outside, nested=True)),
        "savedmodel": saved_model(
            folder / "saved", nodes=(node("w", "Const", value=constant(np.float32([[1, 2], [3, 4]]))),)
        ),
        "keras": keras_file(folder / "m.keras", config(), {"model.weights.h5": weights}),
        "deflated keras": keras_file(folder / "d.keras", config(), {"model.weights.h5": weights}, zipfile.ZIP_DEFLATED),
        "h5": h5_file(folder / "m.h5", config(), w={"data": np.ones((3, 2), np.float32)}),
        "tfjs": tfjs(folder / "web"),
    }
