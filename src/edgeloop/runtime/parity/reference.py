"""The real inputs a bundle carries, and its source's answers to them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.bundle import REFERENCE, Bundle, Variant
from edgeloop.errors import DataError
from edgeloop.processes.frames import PAYLOAD_LIMIT_BYTES, unpack
from edgeloop.runtime.parity.answers import is_whole
from edgeloop.runtime.parity.compare import bounded_outputs, judged_as
from edgeloop.runtime.parity.self_check import Reference

Arrays = dict[str, np.ndarray]


def read_reference(bundle: Bundle) -> tuple[Arrays, Arrays] | None:
    """Inputs and outputs by tensor name, every array [n, ...] with the same n, at least 1. None: it carries none.

    Of a model without a batch axis, n counts calls: the arrays have one axis more than the tensors (answers.py).

    Raises:
        DataError: reference.npz is no .npz of such arrays, stored as they are (docs/bundle.md), has more than 2 GiB, or
            has no inputs or no outputs.
    """
    file = bundle.file(REFERENCE)
    if not file.is_file():
        return None
    again = "Convert the model again."
    if file.stat().st_size > PAYLOAD_LIMIT_BYTES:
        raise DataError(f"{file} has more than {PAYLOAD_LIMIT_BYTES} bytes", advice=again)
    try:
        arrays = unpack(file.read_bytes(), stored=True)
    except ValueError as e:
        raise DataError(f"{file} cannot be read as an .npz file of arrays ({e})", advice=again) from e
    inputs = {name[3:]: array for name, array in arrays.items() if name.startswith("in/")}
    outputs = {name[4:]: array for name, array in arrays.items() if name.startswith("out/")}
    if not inputs or not outputs:
        raise DataError(
            f"{file} holds {sorted(arrays)} instead of inputs named in/NAME and outputs named out/NAME", advice=again
        )
    n = max(len(np.atleast_1d(array)) for array in inputs.values())
    for name, array in [*inputs.items(), *outputs.items()]:
        if not n or array.ndim == 0 or len(array) != n:
            raise DataError(
                f"{file}: {name} has shape {list(array.shape)} instead of {n or 1} samples first", advice=again
            )
    return inputs, outputs


def reference_of(bundle: Bundle, variant: Variant, real: tuple[Arrays, Arrays]) -> Reference:
    """What `read_reference` read, as that variant is judged by it."""
    source = bundle.manifest.source
    scheme, whole = judged_as(variant.scheme, source), has_whole_calls(bundle, real[0])
    return Reference(*real, scheme, variant.io, whole=whole, bounded=bounded_outputs(source))


def has_whole_calls(bundle: Bundle, inputs: Mapping[str, np.ndarray]) -> bool:
    """Whether the model has no batch axis, so that each sample of these reference inputs is all that one call takes."""
    signatures = bundle.manifest.signatures.values()
    return any(is_whole(s.inputs, inputs) for s in signatures if {t.name for t in s.inputs} == set(inputs))
