"""What a path holds, by its first bytes and not by its name. Loads nothing, and reads no file into memory.

Source of the ONNX field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (ModelProto)
"""

from __future__ import annotations

import contextlib
import enum
import string
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from edgeloop.errors import ModelError
from edgeloop.files.mapped import mapped
from edgeloop.files.protobuf import fields
from edgeloop.hashes import digest, digest_of

EXPECTED = (
    "Expected a .keras, .h5, .onnx or .tflite file, a SavedModel folder, a TF.js model.json, "
    "or the run folder of edgeloop train."
)
SAVED_MODEL = "saved_model.pb"  # in the folder of a SavedModel
TFJS_MODEL = "model.json"  # in the folder of a TF.js model
RUN_MODEL, RUN_CONFIG = "model.keras", "config.toml"  # in the run folder of a training
LIMIT_BYTES = 2 << 30  # of one tensor, of a file read whole, and of what an archive unpacks to
ONNX_VERSIONS = range(1, 64)  # of the format (ir_version); onnx 1.23 writes 14
ONNX_GRAPH = 7
ONNX_FIELDS = 100_000  # of a ModelProto that are looked at; the graph is among the first ten
BLOCK_BYTES = 1 << 20
TEXT = frozenset(string.printable.encode())


class SourceKind(enum.StrEnum):
    KERAS = "keras"
    SAVEDMODEL = "savedmodel"
    TFLITE = "tflite"
    ONNX = "onnx"
    TFJS = "tfjs"


def identify(path: str | Path) -> SourceKind:
    """Which of the formats it is.

    Raises:
        ModelError: None of them, or it cannot be read; says what was found instead.
    """
    path = Path(path)
    with _readable(path):
        return _identify(path)


def model_of(path: Path) -> Path:
    """The model file that `path` stands for: of a run folder of edgeloop train, its best model; else itself.

    Raises:
        ModelError: It cannot be read.
    """
    with _readable(path):
        is_run = all((path / name).is_file() for name in (RUN_CONFIG, RUN_MODEL))
        is_other = any((path / name).is_file() for name in (SAVED_MODEL, TFJS_MODEL))
        return path / RUN_MODEL if is_run and not is_other else path


def source_digest(path: Path) -> str:
    """sha256 of a file, or of a folder's sorted relative names and file digests."""
    if path.is_file():
        return digest(path)
    files = [f for f in path.rglob("*") if f.is_file()]
    lines = sorted(f"{f.relative_to(path).as_posix()} {digest(f)}\n" for f in files)
    return digest_of("".join(lines).encode())


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        raise ModelError(f"{path} cannot be read ({e})", advice=EXPECTED) from e


def _identify(path: Path) -> SourceKind:
    if not path.exists():
        raise ModelError(f"{path} does not exist", advice=EXPECTED)
    if path.is_dir():
        if (path / SAVED_MODEL).is_file():
            return SourceKind.SAVEDMODEL
        if (path / TFJS_MODEL).is_file() and _is_tfjs(path / TFJS_MODEL):
            return SourceKind.TFJS
        found = "an empty folder" if not any(path.iterdir()) else "a folder without saved_model.pb or model.json"
        raise ModelError(f"{path} is {found}", advice=EXPECTED)
    if not path.is_file():
        raise ModelError(f"{path} is a pipe or a device file", advice=EXPECTED)
    with path.open("rb") as file:
        head = file.read(64)
    if head[4:8] == b"TFL3":
        return SourceKind.TFLITE
    if head.startswith((b"PK\x03\x04", b"\x89HDF\r\n\x1a\n")):
        return SourceKind.KERAS
    if head.lstrip()[:1] == b"{" and _is_tfjs(path):
        return SourceKind.TFJS
    if head[:1] == b"\x08" and _is_onnx(path):
        return SourceKind.ONNX
    raise ModelError(f"{path} is {_other(head, path)}", advice=EXPECTED)


def _is_tfjs(path: Path) -> bool:
    if path.stat().st_size > LIMIT_BYTES:
        return False
    word, tail = b'"modelTopology"', b""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            if word in tail + block:
                return True
            tail = block[-len(word) :]
    return False


def _is_onnx(path: Path) -> bool:
    """A ModelProto begins with its ir_version, as every writer puts it, and has one graph."""
    size = path.stat().st_size
    if size > LIMIT_BYTES:
        raise ModelError(
            f"{path} has {size} bytes, more than the {LIMIT_BYTES} that a protobuf can hold",
            advice="Save the weights as external data.",
        )
    try:
        found = dict(islice(fields(mapped(path)), ONNX_FIELDS))
    except ValueError:
        return False
    return found.get(1) in ONNX_VERSIONS and isinstance(found.get(ONNX_GRAPH), memoryview)


def _other(head: bytes, path: Path) -> str:
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer: fetch the file it stands for"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "an HTML page, perhaps an error page saved under the model's name"
    if TEXT.issuperset(head):
        return "a text file"
    if path.suffix == ".onnx":
        return "a damaged .onnx file"
    return "a file of another format"
