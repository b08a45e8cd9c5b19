"""An .onnx file: data outside of it, sizes, weights that are no numbers. ONNX Runtime maps external data as it is told.

Source of the field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; of external data:
https://github.com/onnx/onnx/blob/main/docs/ExternalData.md (a path relative to the model's folder, no "..")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np

from edgeloop.convert.sources.finite import refuse_not_finite
from edgeloop.convert.sources.identify import LIMIT_BYTES, ONNX_GRAPH
from edgeloop.errors import ModelError
from edgeloop.files.mapped import mapped
from edgeloop.files.protobuf import fields, messages, text, whole

# TensorProto.DataType to bytes an element; 4-bit types count one, which is enough for a limit
ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2}
FLOATS = {1: "<f4", 10: "<f2", 11: "<f8"}
NESTED = 50  # graphs inside graphs
EXTERNAL = 1  # TensorProto.DataLocation


def scan_onnx(path: Path) -> list[str]:
    """Nothing in ONNX runs code by itself, so the list is empty.

    Raises:
        ModelError: External data with an absolute path, "..", a link or beyond its file; tensors over 2 GB, or NaN.
        ValueError: No protobuf of a model.
    """
    model = memoryview(path.read_bytes())
    if not messages(model, ONNX_GRAPH):
        raise ValueError("it has no graph")
    total = 0
    for tensor in _tensors(model):
        total += _tensor(path, tensor)
        if total > LIMIT_BYTES:
            raise ModelError(
                f"{path} holds weights of more than {LIMIT_BYTES} bytes, the limit", advice="Convert a smaller model."
            )
    return []


def external_files(path: Path) -> tuple[Path, ...]:
    """The files in the model's own folder that it keeps tensors in, sorted. What is refused is left out.

    Raises:
        ValueError: No protobuf of a model.
    """
    folder = path.parent.resolve()
    names = {
        text(entry, 2)
        for tensor in _tensors(mapped(path))  # no memory for the weights: nothing limits who asks
        for entry in messages(tensor, 13)
        if text(entry, 1) == "location"
    }
    found = set()
    for name in names:
        with suppress(OSError, RuntimeError, ValueError):  # a name too long, a link to itself, a NUL
            file = (folder / name).resolve()
            if file.is_relative_to(folder) and file.is_file():
                found.add(file)
    return tuple(sorted(found))


def _tensors(model: memoryview) -> Iterator[memoryview]:
    for graph in messages(model, ONNX_GRAPH):
        yield from _of_graph(graph, 0)
    for function in messages(model, 25):
        for node in messages(function, 7):
            yield from _of_node(node, 0)
    for training in messages(model, 20):
        for graph in (*messages(training, 1), *messages(training, 2)):
            yield from _of_graph(graph, 0)


def _of_graph(graph: memoryview, depth: int) -> Iterator[memoryview]:
    if depth > NESTED:
        raise ValueError(f"graphs nested more than {NESTED} times")
    yield from messages(graph, 5)
    for sparse in messages(graph, 15):
        yield from (*messages(sparse, 1), *messages(sparse, 2))
    for node in messages(graph, 1):
        yield from _of_node(node, depth)


def _of_node(node: memoryview, depth: int) -> Iterator[memoryview]:
    for attribute in messages(node, 5):
        for number, value in fields(attribute):
            if not isinstance(value, memoryview):
                continue
            if number in (5, 10):
                yield value
            elif number in (22, 23):
                yield from (*messages(value, 1), *messages(value, 2))
            elif number in (6, 11):
                yield from _of_graph(value, depth + 1)


def _tensor(path: Path, tensor: memoryview) -> int:
    """Bytes of the tensor, after its shape, place and numbers were looked at."""
    name, kind = text(tensor, 8) or "without a name", whole(tensor, 2)
    sizes = _dims(tensor)
    total = ITEM_BYTES.get(kind, 1)
    for size in sizes:
        if size < 0:
            raise ModelError(
                f"{path}: the tensor {name!r} has the shape {sizes}, and a size must be 0 or more",
                advice="Get the model from a source you trust.",
            )
        total *= size
    if total > LIMIT_BYTES:
        raise ModelError(
            f"{path}: the tensor {name!r} of shape {sizes} has {total} bytes, the limit is {LIMIT_BYTES}",
            advice="Convert a smaller model.",
        )
    external = {text(entry, 1): text(entry, 2) for entry in messages(tensor, 13)}
    if external or whole(tensor, 14) == EXTERNAL:
        data: memoryview | bytes = _external(path, name, external, total, kind in FLOATS)
    else:
        raw = messages(tensor, 9)
        data = raw[-1] if raw else b"".join(messages(tensor, {1: 4, 11: 10}.get(kind, 9)))
        if raw and kind in ITEM_BYTES and len(data) != total:
            raise ValueError(f"the tensor {name!r} of shape {sizes} holds {len(data)} bytes, expected {total}")
    if kind in FLOATS:
        values = np.frombuffer(data, FLOATS[kind])
        refuse_not_finite(path, name, values.reshape(sizes) if values.nbytes == total else values, constant=True)
    return total


def _dims(tensor: memoryview) -> list[int]:
    """`dims`, packed or not."""
    sizes: list[int] = []
    for number, value in fields(tensor):
        if number != 1:
            continue
        if isinstance(value, int):
            sizes.append(value)
        else:  # a packed list reads as the varints of a field after each other: give each the key of field 1
            at = 0
            while at < len(value):
                end = at
                while end < len(value) - 1 and value[end] & 0x80:
                    end += 1
                sizes.append(whole(memoryview(b"\x08" + bytes(value[at : end + 1])), 1))
                at = end + 1
    return [size - (1 << 64) if size >= 1 << 63 else size for size in sizes]


def _external(path: Path, name: str, entries: dict[str, str], total: int, read: bool) -> bytes:
    file, offset = external_place(path, name, entries, total)
    if not read:
        return b""
    with file.open("rb") as data:
        data.seek(offset)
        return data.read(total)


def external_place(path: Path, name: str, entries: Mapping[str, str], total: int) -> tuple[Path, int]:
    """The file, and the offset in it, of the `total` bytes of a tensor that the model at `path` keeps outside of it.

    Raises:
        ModelError: An absolute path, "..", a link out of the model's folder, no such file, or not so many bytes in it.
        ValueError: An offset or length that is no number.
    """
    location = entries.get("location", "")
    parts = PurePosixPath(location.replace("\\", "/"))
    folder = path.parent.resolve()
    if not location or parts.is_absolute() or ".." in parts.parts or ":" in location or "\0" in location:
        raise ModelError(
            f"{path} keeps the tensor {name!r} in {location!r}, which leads out of its folder",
            advice="Get the model from a source you trust.",
        )
    file = folder / location
    if not file.resolve().is_relative_to(folder):
        raise ModelError(
            f"{path} keeps the tensor {name!r} in {location!r}, a link to a file outside its folder",
            advice="Copy that file into the folder.",
        )
    if not file.is_file():
        raise ModelError(
            f"{path} keeps the tensor {name!r} in {location!r}, which does not exist",
            advice="Put that file beside the model.",
        )
    offset, length = int(entries.get("offset") or 0), int(entries.get("length") or total)
    if offset < 0 or length != total or offset + length > file.stat().st_size:
        raise ModelError(
            f"{path} keeps the tensor {name!r} of {total} bytes at {offset}, {length} bytes long, of "
            f"{location!r}, which has {file.stat().st_size}",
            advice="Fetch both files again.",
        )
    return file, offset
