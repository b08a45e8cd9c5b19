"""Windows that slide over the spatial axes of [N, C, D1, ...]: what convolutions and pools have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.padding import Pads
from edgeloop.convert.onnx.value import AtRunTime, Unsupported
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Sizes = Sequence[int | None]


@dataclass(frozen=True, slots=True)
class Windows:
    """A window, one entry a spatial axis.

    Attributes:
        pads: Elements added before and behind; behind as many as the last window of `ceil_mode` needs. None where they
            depend on a free size, and TensorFlow's SAME adds them.
        counted: Those of them that ONNX names, without what `ceil_mode` adds: averages may count these.
        same: TensorFlow's SAME adds exactly `pads`.
    """

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    pads: Pads | None
    counted: Pads
    same: bool

    @property
    def how(self) -> str:
        """TensorFlow's padding, where `around_image` says what is added before."""
        return "SAME" if self.same and self.padding else "VALID"

    @property
    def padding(self) -> bool:
        """Whether anything is added."""
        return self.pads is None or any(p for both in self.pads for p in both)

    @property
    def dense(self) -> bool:
        """Whether the window has no holes."""
        return all(d == 1 for d in self.dilations)

    def fixed_pads(self) -> Pads:
        """`pads` where they have to be numbers.

        Raises:
            AtRunTime: They depend on a free size.
        """
        if self.pads is None:
            raise AtRunTime("auto_pad of a free size with a stride")
        return self.pads

    def around_image(self) -> Pads:
        """`pads` for a tensor that lies channels last, with its batch."""
        return [(0, 0), *self.fixed_pads(), (0, 0)]

    def with_height(self) -> Windows:
        """Over [N, 1, L, C] what this is over [N, L, C]."""
        return Windows(
            [1, *self.kernel],
            [1, *self.strides],
            [1, *self.dilations],
            None if self.pads is None else [(0, 0), *self.pads],
            [(0, 0), *self.counted],
            self.same,
        )


def windows(n: Node, kernel: Sequence[int | None], dims: Sizes) -> Windows:
    """From the attributes strides, dilations, pads, auto_pad and ceil_mode, for spatial axes of the sizes `dims`.

    Raises:
        Unsupported: The size of the kernel is not known, or there are more than three spatial axes.
        AtRunTime: What is added depends on a free size.
    """
    if None in kernel or not 0 < len(kernel) < 4 or len(kernel) != len(dims):
        raise Unsupported(f"a window of the sizes {list(kernel)} over {len(dims)} axes")
    sizes = [int(k or 0) for k in kernel]
    strides, dilations = (list(n.attr(name, [1] * len(sizes))) for name in ("strides", "dilations"))
    spans = [(k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True)]
    mode, flat = n.attr("auto_pad", "NOTSET"), n.attr("pads", [0] * 2 * len(sizes))
    if mode == "SAME_UPPER" and any(d is None and s != 1 for d, s in zip(dims, strides, strict=True)):
        return Windows(sizes, strides, dilations, None, [(0, 0)] * len(sizes), same=True)
    if mode.startswith("SAME"):
        pads = [_same_size(mode, *axis) for axis in zip(dims, spans, strides, strict=True)]
    else:
        pads = [(0, 0) if mode == "VALID" else (flat[i], flat[i + len(sizes)]) for i in range(len(sizes))]
    counted = pads if not mode.startswith("SAME") else [(0, 0)] * len(sizes)
    if n.attr("ceil_mode", 0) and not mode.startswith("SAME"):
        pads = [_rounded_up(*axis) for axis in zip(dims, pads, spans, strides, strict=True)]
    same = all(_is_same(*axis) for axis in zip(pads, dims, spans, strides, strict=True))
    return Windows(sizes, strides, dilations, pads, counted, same)


def _same_size(mode: str, size: int | None, span: int, stride: int) -> tuple[int, int]:
    """As many as give ceil(size / stride) windows; the odd one behind (SAME_UPPER) or before."""
    if stride == 1:
        total = span - 1
    elif size is None:
        raise AtRunTime(f"auto_pad {mode} of a free size with a stride")
    else:
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
    half = total // 2
    return (half, total - half) if mode == "SAME_UPPER" else (total - half, half)


def _rounded_up(size: int | None, pads: tuple[int, int], span: int, stride: int) -> tuple[int, int]:
    """With what the last, incomplete window needs behind the data; no window starts behind the data."""
    before, behind = pads
    if size is None:
        if span < behind + stride:
            raise AtRunTime("ceil_mode of a free size")
        return before, behind + stride - 1  # windows that fit in this many more: their number is rounded up
    steps = -(-(size + before + behind - span) // stride)
    if steps * stride >= size + before:
        steps -= 1
    return before, max(behind, steps * stride + span - size - before)


def _is_same(pads: tuple[int, int], size: int | None, span: int, stride: int) -> bool:
    if stride != 1 and size is None:
        return False
    return pads == _same_size("SAME_UPPER", size, span, stride)
