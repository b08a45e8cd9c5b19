"""Arrays from a user's .npz, checked against the model before anything is measured with them."""

from __future__ import annotations

import enum
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.convert.samples import Samples, as_calls, as_rows
from edgeloop.errors import DataError
from edgeloop.files.npz import ArrayFile, Member, mapped, members

Shape = tuple[int | None, ...]
LABELS, LABELS_OF = "y", "y/"  # of the only output, and before the name of one of several


class LabelPolicy(enum.Enum):
    """Whether to read the array `y`: numbers of any shape, or (NEEDED) integers [n]."""

    NONE = enum.auto()
    IF_ANY = enum.auto()
    NEEDED = enum.auto()


def read_samples(
    path: str | Path, specs: Sequence[TensorSpec], *, labels: LabelPolicy = LabelPolicy.NONE, whole: bool = False
) -> Samples:
    """A .npz, or a folder of them, with `in/NAME`, `NAME` or (for one input) `x`; `y` (or `y/OUTPUT`) where labels are.

    Every value is looked at once, a quarter of a mebibyte at a time.

    Args:
        whole: The model has no batch axis: a sample is all that one call takes, so arrays are [n, *the whole shape].
            What comes as rows of a batch is called in batches of the model's own size, or of one.

    Raises:
        DataError: Missing, no .npz, pickled, over the limit, an input that is absent, of another dtype or shape, or
            not finite; labels that are absent, no numbers (where they are NEEDED, no integers), or of another number.
    """
    path = Path(path)
    parts = [members(file) for file in npz_files(path)]
    layouts = {spec.name: _layouts(spec, specs, whole) for spec in specs}
    found = {spec.name: _find(parts, spec, layouts[spec.name], len(specs), path) for spec in specs}
    counts = {name: sum(member.shape[0] for member in each) for name, each in found.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise DataError(f"{path} holds {counts} samples", advice="Pass equally many of each input, and at least one.")
    key = _label_key(parts, path, labels)
    y = _labels(parts, key, next(iter(counts.values())), path, labels) if key else None
    inputs, maps = {}, []
    for spec in specs:
        inputs[spec.name], pages = _read(found[spec.name], spec)
        maps.append(pages)
    output = key.removeprefix(LABELS_OF) if key and key != LABELS else None
    samples = Samples(inputs=inputs, labels=y, label_output=output, maps=tuple(maps))
    return as_calls(samples, specs, path) if whole else as_rows(samples, specs, path)


def npz_files(path: Path) -> list[Path]:
    """The file, or those of a folder by name.

    Raises:
        DataError: There is none.
    """
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(f"{path} is neither an .npz file nor a folder of them", advice="Make one with numpy.savez.")
    return files


def array_of(parts: Sequence[Mapping[str, Member]], name: str, inputs: int) -> str | None:
    """The name of an input's array in every file, of a model with so many inputs; None: it is not in all of them."""
    keys = set(parts[0]).intersection(*parts[1:])
    return next((key for key in _names(name, inputs) if key in keys), None)


def _names(name: str, inputs: int) -> list[str]:
    return [f"in/{name}", name, *(["x"] if inputs == 1 else [])]


def _layouts(spec: TensorSpec, specs: Sequence[TensorSpec], whole: bool) -> list[Shape]:
    """The shapes that one sample of this input may have, the expected one first."""
    first = spec.shape[:1]
    rows = [] if not spec.shape else [spec.shape[1:]]
    if not whole:
        return rows + ([] if first == (None,) else [spec.shape])
    same = len({other.shape[:1] for other in specs}) == 1
    return [spec.shape, *(rows if same or first in ((1,), (None,)) else [])]


def _find(
    parts: Sequence[Mapping[str, Member]], spec: TensorSpec, layouts: Sequence[Shape], inputs: int, path: Path
) -> list[Member]:
    """The member for `spec` in every file, by header of the right kind and shape."""
    name = array_of(parts, spec.name, inputs)
    if name is None:
        raise DataError(
            f"{path} has the arrays {sorted(set(parts[0]).intersection(*parts[1:]))}, and none for the input "
            f"{spec.name!r}",
            advice=f"Name one {_names(spec.name, inputs)[-1]!r}.",
        )
    found, wanted = [part[name] for part in parts], np.dtype(spec.dtype)
    for member in found:
        if member.dtype.kind != wanted.kind:
            raise DataError(f"{path}: {name} is {member.dtype}, and the model takes {wanted}", advice=_kind(member))
        if not member.shape or not any(_fits(member.shape[1:], layout) for layout in layouts):
            shape = "[n" + "".join(f", {'any' if d is None else d}" for d in layouts[0]) + "]"
            raise DataError(
                f"{path}: {name} has shape {list(member.shape)}, and the model takes {shape}",
                advice="Save arrays of that shape.",
            )
        if member.shape[1:] != found[0].shape[1:]:
            shapes = [list(m.shape) for m in (found[0], member)]
            raise DataError(
                f"{path}: {name} has the shapes {shapes} in two of its files",
                advice="Save all files with equal shapes.",
            )
    return found


def _kind(member: Member) -> str:
    if member.dtype.kind in "SU":
        return "Look the words up first: save what the model's lookup layer answers, behind which every form begins."
    return "Save the inputs as the model was trained on them."


def _fits(shape: Shape, layout: Shape) -> bool:
    return len(shape) == len(layout) and all(d in (None, have) for d, have in zip(layout, shape, strict=True))


def _read(found: Sequence[Member], spec: TensorSpec) -> tuple[np.ndarray, mmap.mmap]:
    wanted, first = np.dtype(spec.dtype), found[0]
    direct = len(found) == 1 and first.stored and first.dtype == wanted
    spool = None if direct else ArrayFile(wanted)
    for member in found:
        for rows in member.chunks():
            cast = _fitting(rows, wanted, f"{member.path}: {member.entry.filename.removesuffix('.npy')}")
            if spool is not None:
                spool.add(cast)
    if spool is None:
        return mapped(first)
    return spool.array((sum(member.shape[0] for member in found), *first.shape[1:]))


def _fitting(rows: np.ndarray, wanted: np.dtype, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # what does not fit is looked for, right below
        cast = rows.astype(wanted, copy=False)
    if wanted.kind == "f" and not np.isfinite(cast).all():
        raise DataError(
            f"{name} holds NaN, infinity or a number too large for {wanted}", advice="Remove those samples."
        )
    if wanted.kind in "iu" and not np.array_equal(cast, rows):
        raise DataError(
            f"{name} holds integers that do not fit {wanted}", advice="Save values that the model can take."
        )
    return cast


def _label_key(parts: Sequence[Mapping[str, Member]], path: Path, policy: LabelPolicy) -> str | None:
    """The name of the labels' array; None: none is wanted, or there is none."""
    if policy is LabelPolicy.NEEDED:
        return LABELS
    names = {name for part in parts for name in part if name == LABELS or name.startswith(LABELS_OF)}
    if policy is LabelPolicy.NONE or not names:
        return None
    if len(names) > 1:
        raise DataError(
            f"{path} has the labels {', '.join(sorted(names))}", advice="Keep those of the output that matters most."
        )
    return names.pop()


def _labels(parts: Sequence[Mapping[str, Member]], key: str, count: int, path: Path, policy: LabelPolicy) -> np.ndarray:
    """Integers [n], where they are needed; else any numbers [n, ...]: metrics.py tells what they mean."""
    found = [part[key] for part in parts if key in part]
    shapes = {m.shape[1:] for m in found}
    classes = policy is LabelPolicy.NEEDED
    good = len(found) == len(parts) and all(m.shape and m.dtype.kind in ("iu" if classes else "biuf") for m in found)
    if not good or sum(m.shape[0] for m in found) != count or len(shapes) > 1 or (classes and shapes != {()}):
        what = f"{key} of {found[0].dtype} {list(found[0].shape)}" if found else "no array y"
        kind = "integer labels y" if classes else "labels y, classes or numbers"
        raise DataError(f"{path} has {what}", advice=f"Pass {kind}, one for each of the {count} samples.")
    return np.concatenate([_numbers(rows, path) for member in found for rows in member.chunks()])


def _numbers(rows: np.ndarray, path: Path) -> np.ndarray:
    """Labels as they are, but booleans and floats as float64, none larger than a float32 output can be."""
    if rows.dtype.kind in "iu":
        return rows
    _fitting(rows, np.dtype(np.float32), f"{path}: y")
    return rows.astype(np.float64)
