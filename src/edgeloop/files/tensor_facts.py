"""How inspect shows a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def tensor_facts(name: str, dims: Sequence[int | str | None] | None, dtype: str) -> dict[str, Any]:
    """{name, shape, dtype}, where a free size is None and a shape of None is one that the file does not say.

    `dims` is added where the file says more of a free size: a name, or -1; None there: neither.
    """
    if dims is None:
        return {"name": name, "shape": None, "dtype": dtype}
    shape = [d if isinstance(d, int) and d >= 0 else None for d in dims]
    said = {"dims": list(dims)} if list(dims) != shape else {}
    return {"name": name, "shape": shape, "dtype": dtype, **said}
