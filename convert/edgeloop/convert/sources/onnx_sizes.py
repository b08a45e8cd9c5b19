"""What a user decides before an ONNX graph is imported: sizes of its inputs, and inputs that become constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeloop.convert.sources.source_value import Shape
from edgeloop.errors import OptionsError
from edgeloop.extras import need

Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSettings:
    """By the names of inputs, as edgeloop has them or as ONNX has them.

    Attributes:
        shapes: Sizes; None keeps the model's own. What is computed from a fixed size becomes constant.
        fixed: Inputs that become constants, with their numbers.
    """

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    fixed: Mapping[str, Numbers] = field(default_factory=dict)


def own_names(settings: Mapping[str, Any], names: Mapping[str, str], option: str) -> dict[str, Any]:
    """The settings by ONNX's names; `names` maps these to edgeloop's.

    Raises:
        OptionsError: An input that the model does not have.
    """
    own = {new: old for old, new in names.items()} | {old: old for old in names}
    for name in settings:
        if name not in own:
            raise OptionsError(
                f"{option} names the input {name!r}, which the model does not have",
                advice=f"It has: {', '.join(names.values())}.",
            )
    return {own[name]: value for name, value in settings.items()}


def with_sizes(value: Any, shape: Shape, name: str) -> None:
    """Write sizes into the ValueInfoProto of an input called `name`; one without any gets all of them.

    Raises:
        OptionsError: Another number of dimensions, or another size than a fixed one.
    """
    tensor = value.type.tensor_type
    if tensor.HasField("shape"):
        have = [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim]
        fits = len(have) == len(shape) and all(
            None in (own, wanted) or own == wanted for own, wanted in zip(have, shape, strict=True)
        )
        if not fits:
            own, given = (",".join("?" if d is None else str(d) for d in each) for each in (have, shape))
            raise OptionsError(
                f"--shape {name}={given} does not fit the input {name!r} of shape {own}",
                advice="Give every dimension a size or ?, and only free ones (?) another than the model's.",
            )
    else:
        for _ in shape:
            tensor.shape.dim.add()
    for d, wanted in zip(tensor.shape.dim, shape, strict=True):
        if wanted is not None:
            d.dim_value = wanted


def as_array(value: Any, numbers: Numbers, name: str) -> np.ndarray:
    """Numbers for the input that a ValueInfoProto describes, in its shape and type.

    Raises:
        OptionsError: Another number of them than its shape has, or numbers that its type cannot hold.
    """
    helper = need("onnx.helper", extra="convert")
    tensor = value.type.tensor_type
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    shape: list[int] = [d.dim_value if d.dim_value > 0 else -1 for d in tensor.shape.dim]
    given = ",".join(f"{number:g}" for number in numbers)
    size = math.prod(d for d in shape if d > 0)
    free = shape.count(-1)
    if free > 1 or (len(numbers) % size if free else len(numbers) != size):
        sizes = ",".join("?" if d < 0 else str(d) for d in shape) or "one number"
        raise OptionsError(
            f"--fix {name}={given} has {len(numbers)} numbers, and the input {name!r} is {sizes}",
            advice="Pass as many numbers as the input has.",
        )
    array = np.asarray(numbers, np.float64).reshape(shape).astype(dtype)
    if dtype.kind in "iub" and not np.array_equal(array.astype(np.float64).ravel(), numbers):
        raise OptionsError(
            f"--fix is {name}={given}, and the input {name!r} is {dtype}", advice="Pass numbers of that type."
        )
    return array


def named_sizes(shape: Sequence[int | None]) -> str:
    """Sizes as --shape takes them: 1,3,224,?"""
    return ",".join("?" if d is None else str(d) for d in shape)
