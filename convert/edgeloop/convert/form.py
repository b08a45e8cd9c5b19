"""The forms that a conversion may write, and what becomes of one that cannot be made or does not agree.

A form that the user named must be written, or the conversion fails. Any other is left out: one line says which, why,
and which options ask for it, and the manifest lists it.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgeloop.bundle import Format, LeftOut, Scheme, Variant
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.options import MEASURED, ConvertOptions
from edgeloop.errors import EdgeloopError, MissingExtra, OptionsError
from edgeloop.progress import Say

DIARY_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One variant that can be asked for; `named`: the user asked for this one."""

    id: str
    format: Format
    scheme: Scheme
    io: Io = Io.FLOAT32
    named: bool = False

    @property
    def request(self) -> tuple[str, ...]:
        """The options that name this form."""
        words = ("--to", self.format.value)
        if self.scheme is Scheme.FLOAT32 or self.format is Format.TFJS:
            return words
        if self.format is Format.ONNX:
            return (*words, "--calibration", "F.npz", "--strict")
        io = ("--io", self.io.value) if self.io is not Io.FLOAT32 else ()
        data = ("--calibration", "F.npz") if self.scheme in MEASURED else ()
        return (*words, "--schemes", self.scheme.value, *io, *data)


def tflite_forms(schemes: Sequence[Scheme], options: ConvertOptions) -> tuple[Form, ...]:
    """The .tflite files of these schemes."""
    asked_io = options.io != (Io.FLOAT32,)
    forms = []
    for scheme in schemes:
        for io in options.io if scheme is Scheme.INT8 else (Io.FLOAT32,):
            named = (
                options.strict
                or scheme in (options.schemes or ())
                or (scheme is Scheme.FLOAT32 and Format.TFLITE in (options.to or ()))
                or (scheme is Scheme.INT8 and asked_io)
            )
            id = scheme.value if io is Io.FLOAT32 else f"{scheme.value}-io"
            forms.append(Form(id=id, format=Format.TFLITE, scheme=scheme, io=io, named=named))
    return tuple(forms)


def onnx_forms(schemes: Sequence[Scheme], options: ConvertOptions) -> tuple[Form, ...]:
    """model.onnx, and its int8 beside it where int8 is among the schemes and can be calibrated."""
    asked = Format.ONNX in (options.to or ())
    forms = [Form(id="onnx", format=Format.ONNX, scheme=Scheme.FLOAT32, named=options.strict or asked)]
    if options.calibration is not None and Scheme.INT8 in schemes:
        # --schemes names .tflite files; this one comes along
        forms.append(Form(id="onnx-int8", format=Format.ONNX, scheme=Scheme.INT8, named=options.strict))
    return tuple(forms)


def tfjs_form(scheme: Scheme, options: ConvertOptions) -> Form:
    named = options.strict or Format.TFJS in (options.to or ())
    return Form(id="tfjs", format=Format.TFJS, scheme=scheme, named=named)


def form_of(variant: Variant) -> Form:
    """The form that a variant was made as."""
    io = Io.INT8 if variant.id.endswith("-io") else Io.FLOAT32
    return Form(id=variant.id, format=variant.format, scheme=variant.scheme, io=io)


def named_ids(schemes: Sequence[Scheme] | None, variants: Sequence[Variant], options: ConvertOptions) -> list[str]:
    """Which of these variants the user named: they must agree."""
    if schemes is None:  # the one .tflite that was copied
        return [variant.id for variant in variants]
    planned = [*tflite_forms(schemes, options), *onnx_forms(schemes, options), tfjs_form(Scheme.FLOAT32, options)]
    optional = {form.id for form in planned if not form.named}
    if options.schemes is None and options.search is None and not options.strict:
        optional.add(Scheme.MIXED.value)  # written where int8 could not be
    return [variant.id for variant in variants if variant.id not in optional]


@dataclass(slots=True)
class FormLog:
    """Which forms were left out of one conversion. `model` and `out` are for the command that asks for one.

    Attributes:
        diary: Where the forms that are being made are written, for a parent whose child crashes while it makes them.
    """

    model: str
    out: Path
    say: Say
    left_out: list[LeftOut] = field(default_factory=list)
    first: EdgeloopError | None = None
    diary: Path | None = None
    _making: tuple[Form, ...] = ()

    @contextlib.contextmanager
    def leave_out(self, forms: Sequence[Form]) -> Iterator[None]:
        """What the body raises leaves these forms out, unless one of them was named: then it is raised."""
        try:
            with self.making(forms):
                yield
        except EdgeloopError as e:
            if not forms or any(form.named for form in forms):
                raise
            self.add(forms, e)

    @contextlib.contextmanager
    def making(self, forms: Sequence[Form]) -> Iterator[None]:
        """A crash in the body concerns these forms; none: the whole conversion."""
        before = self._making
        self._write(tuple(forms))
        try:
            yield
        finally:
            self._write(before)

    def remaining(self, forms: Sequence[Form]) -> tuple[Form, ...]:
        """Those of `forms` that are not left out yet."""
        gone = {one.id for one in self.left_out}
        return tuple(form for form in forms if form.id not in gone)

    def _write(self, forms: tuple[Form, ...]) -> None:
        self._making = forms
        if self.diary is not None:
            self.diary.write_text(json.dumps([asdict(form) for form in forms], default=lambda choice: choice.value))

    def add(self, forms: Sequence[Form], error: EdgeloopError) -> None:
        """Leave out `forms` because of `error`, and say so in one line."""
        self.first = self.first or error
        told = type(error)(error.args[0], advice=error.advice)  # `where` is the model, which the reader knows
        reason = told.sentence if told.sentence.endswith((".", "?", "!", "…")) else f"{told.sentence}."
        self.left_out += [LeftOut(id=form.id, format=form.format, scheme=form.scheme, reason=reason) for form in forms]
        ids = ", ".join(form.id for form in forms)
        were = "was" if len(forms) == 1 else "were"
        advice = f" {told.advice}" if told.advice else ""
        command = shlex.join(["edgeloop", "convert", self.model, "-o", self.out.name, *forms[0].request])
        ask = "" if isinstance(error, (MissingExtra, OptionsError)) else f" To ask for it: {command}"
        self.say(f"{ids} {were} not written: {reason}{advice}{ask}")


def read_diary(diary: Path) -> tuple[Form, ...]:
    """The forms that a child was making when it crashed; none where that is not known: the child had met the model."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        with diary.open("rb") as file:
            rows = json.loads(file.read(DIARY_BYTES))
        return tuple(
            Form(
                id=str(row["id"]),
                format=Format(row["format"]),
                scheme=Scheme(row["scheme"]),
                io=Io(row["io"]),
                named=row["named"] is True,
            )
            for row in rows
        )
    return ()
