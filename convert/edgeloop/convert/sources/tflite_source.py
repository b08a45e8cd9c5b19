"""A .tflite as a source: its signature, its tensors, its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import INFERENCE
from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.tflite_file import is_kept_unchanged
from edgeloop.convert.sources.float32_weights import with_float32_weights
from edgeloop.convert.sources.identify import SourceKind, source_digest
from edgeloop.convert.sources.source_value import INFER, Source, tensor_specs
from edgeloop.convert.sources.tflite_uniform import fill_codes, free_name, name_tensors, uniform, with_one_signature
from edgeloop.errors import ModelError, one_line
from edgeloop.extras import need
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.files.inspect import DAMAGE

Named = list[tuple[str, tuple[tuple[int | None, ...], str]]]  # (name, (shape, dtype))


def open_tflite(path: Path, signature: str | None, allow_unsafe: bool = False) -> Source:
    """Load a file that `safety.check` has looked at.

    Args:
        signature: None: infer, serving_default, or the first.
        allow_unsafe: Changes nothing here; every opener takes it.

    Raises:
        ModelError: LiteRT refuses the file, or there is no such signature.
    """
    read = add_signature(path.read_bytes(), INFER, path)
    plain = _plain(read, path)
    # the file itself answers for what is made of it, and is what is copied where it can only be copied
    name, inputs, outputs = tflite_specs(read, signature, path)
    _refuse_text(path, inputs, outputs)
    kept = is_kept_unchanged(plain)
    others = [s.name for s in read_tflite(read).signatures if s.name != name]
    notes = (f"The signature {name!r} was converted. Others are left out: {', '.join(others)} (--signature NAME).",)
    return Source(
        path=path,
        kind=SourceKind.TFLITE,
        sha256=source_digest(path),
        signature=name,
        inputs=tensor_specs([n for n, _ in inputs], [s for _, s in inputs]),
        outputs=tensor_specs([n for n, _ in outputs], [s for _, s in outputs]),
        call=tflite_call(read, name, path),
        flatbuffer=read if kept else with_one_signature(plain, name),
        notes=notes if others and not kept else (),
    )


def _plain(data: bytes, path: Path) -> bytes:
    """The file with names and codes as every step reads them, and its float weights in float32."""
    try:
        return with_float32_weights(uniform(data))
    except DAMAGE as e:  # of a sparse constant, whose layout nothing checked
        raise ModelError(
            f"{path} holds a sparse constant that cannot be unpacked ({_line(e)})",
            advice="Convert the model again without sparsity.",
        ) from e


def add_signature(data: bytes, key: str, path: Path, names: tuple[Sequence[str], Sequence[str]] | None = None) -> bytes:
    """`data` with a signature `key` on its first subgraph; unchanged when it has signatures and `names` is None.

    A frozen conversion keeps the order of inputs and outputs but drops the signature, and the quantizer's
    calibration wants one. `names` (inputs, outputs) default to the tensors' own names. Tensors without a name, or with
    one that another has, get one of their own (`tflite_uniform`): the quantizer and the proof tell them by it.

    Raises:
        ModelError: The flatbuffer cannot be read, or has other numbers of inputs or outputs than `names`.
    """
    schema = need("ai_edge_litert.schema_py_generated", extra="edge")
    if names is None and read_tflite(data, str(path)).signatures:
        return data
    try:
        model = read_tree(data)
        graph = model.subgraphs[0]
    except Exception as e:  # flatbuffers raises struct, index and type errors on damaged offsets
        raise ModelError(
            f"{path} is a damaged .tflite file ({type(e).__name__})",
            advice="Fetch it again, or convert the model again.",
        ) from e
    fill_codes(model)
    name_tensors(model)
    own = [_unlike(graph.tensors[i].name.decode() for i in side) for side in (graph.inputs, graph.outputs)]
    wanted = [list(side) for side in names] if names else own
    if [len(side) for side in wanted] != [len(side) for side in own]:
        raise ModelError(
            f"{path}: the flatbuffer has inputs and outputs {own}, its description says {wanted}",
            advice="Convert the model again.",
        )

    def entries(labels: Sequence[str], indices: Sequence[int]) -> list[Any]:
        maps = []
        for label, index in zip(labels, indices, strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = label.encode(), index
            maps.append(entry)
        return maps

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = key.encode(), 0
    signature.inputs, signature.outputs = entries(wanted[0], graph.inputs), entries(wanted[1], graph.outputs)
    model.signatureDefs = [signature]
    return write_tree(model)


def _unlike(names: Iterable[str]) -> list[str]:
    """A tensor may be given out twice; a signature has one name for each."""
    used: set[str] = set()
    return [free_name(name, used) for name in names]


def tflite_specs(data: bytes, signature: str | None, path: Path) -> tuple[str, Named, Named]:
    """Name, inputs and outputs of a signature (the only one, or the one asked for).

    Raises:
        ModelError: LiteRT refuses the file, or there is no such signature.
    """
    interpreter = _interpreter(data, path)
    names = list(interpreter.get_signature_list())
    # a trainable .tflite has several, and evaluate comes first
    name = signature or next((n for n in INFERENCE if n in names), names[0] if names else "none")
    if name not in names:
        raise ModelError(f"{path} has no signature {name!r}", advice=f"It has: {', '.join(names) or 'none'}.")
    runner = _runner(interpreter, name, path)
    return name, _named(runner.get_input_details()), _named(runner.get_output_details())


def tflite_call(data: bytes, signature: str, path: Path) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """A function that runs a signature with LiteRT, loaded once."""
    runner = _runner(_interpreter(data, path), signature, path)
    return lambda arrays: dict(runner(**arrays))


def _runner(interpreter: Any, signature: str, path: Path) -> Any:
    try:
        return interpreter.get_signature_runner(signature)
    except (ValueError, RuntimeError, KeyError) as e:
        raise ModelError(
            f"{path}: LiteRT cannot prepare the signature {signature!r} ({_line(e)})", advice="Convert the model again."
        ) from e


def _interpreter(data: bytes, path: Path) -> Any:
    interpreter = need("ai_edge_litert.interpreter", extra="edge").Interpreter
    try:
        return interpreter(model_content=data)
    except (ValueError, RuntimeError) as e:
        raise ModelError(f"{path}: LiteRT cannot load it ({_line(e)})", advice="Convert the model again.") from e


def _refuse_text(path: Path, inputs: Named, outputs: Named) -> None:
    for side, verb in ((inputs, "takes"), (outputs, "gives")):
        for name, (_, dtype) in side:
            if dtype == "bytes":
                raise ModelError(
                    f"{path} {verb} text in {name!r}, which no quantizer and few runtimes know",
                    advice="Look words up outside of the model, and convert the part that computes with numbers.",
                )


def _named(details: Mapping[str, Mapping[str, Any]]) -> Named:
    return [
        (name, (tuple(None if d < 0 else int(d) for d in _shape(detail)), np.dtype(detail["dtype"]).name))
        for name, detail in details.items()
    ]


def _shape(detail: Mapping[str, Any]) -> np.ndarray:
    signature = detail.get("shape_signature")
    return detail["shape"] if signature is None or len(signature) == 0 else signature


def _line(e: Exception) -> str:
    return one_line(e, 200)
