"""What a bundle was converted into, as the options that convert new weights of its model into the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from enum import Enum

from edgeloop.bundle import PREPROCESS, REFERENCE, TRAINABLE, Bundle, Format, Scheme, Variant
from edgeloop.convert.form import form_of
from edgeloop.convert.forms.preprocess import Preprocessing
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.options import MEASURED, ConvertOptions
from edgeloop.convert.plan import WRITABLE
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.errors import OptionsError
from edgeloop.federated.fold_back.options import CloudOptions
from edgeloop.settings import Settings, build


def release_options(cloud: CloudOptions, bundle: Bundle, version: int) -> ConvertOptions:
    """How to convert a release: as `[cloud.convert]` says, and in all that it does not say as the bundle was.

    Raises:
        OptionsError: A format or scheme of the bundle is left out; it has a variant whose ranges are measured on real
            inputs, and none are named; it preprocesses its inputs otherwise; or it does not say how devices train it.
    """
    own, manifest, trainable = cloud.convert, bundle.manifest, _trainable(bundle)
    files = [v for v in manifest.variants if v.format is Format.TFLITE and v.id != TRAINABLE]
    schemes = own.schemes or tuple(dict.fromkeys(v.scheme for v in files))
    if own.search is not None:
        schemes = tuple(scheme for scheme in schemes if scheme is not Scheme.MIXED)  # the search finds one itself
    _check_kept("schemes", schemes, [v.scheme for v in files if own.search is None])
    formats = own.to or tuple(f for f in dict.fromkeys(v.format for v in manifest.variants) if f in WRITABLE)
    _check_kept("to", formats, [v.format for v in manifest.variants])
    measured = [scheme.value for scheme in schemes if scheme in MEASURED]
    if measured and own.calibration is None:
        raise OptionsError(
            f"{bundle.path} has the scheme {measured[0]}, whose ranges are measured on real inputs",
            advice='Add [cloud.convert] calibration = "F.npz".',
        )
    return replace(
        own,
        to=formats,
        schemes=schemes or None,
        io=own.io if own.io != (Io.FLOAT32,) else _io(files),
        preprocess=_preprocess(own, bundle),
        trainable=own.trainable or trainable,
        labels=own.labels or _labels(bundle),
        reference=own.reference and REFERENCE in manifest.files,
        evaluation=cloud.eval,
        name=manifest.name,
        release=version,
    )


def _check_kept(key: str, chosen: Collection[Enum], of_bundle: Iterable[Enum]) -> None:
    lost = [one.value for one in of_bundle if one not in chosen]
    if lost:
        raise OptionsError(
            f"[cloud.convert] {key} leaves out {lost[0]}, which devices of this bundle may run",
            advice=f"Add {lost[0]}, or leave {key} out.",
        )


def _io(files: list[Variant]) -> tuple[Io, ...]:
    found = tuple(dict.fromkeys(form_of(variant).io for variant in files if variant.scheme is Scheme.INT8))
    return found or (Io.FLOAT32,)


def _preprocess(own: ConvertOptions, bundle: Bundle) -> Preprocessing | None:
    """That of the bundle: devices give the release the same inputs."""
    found = _kept(bundle, PREPROCESS, Preprocessing)
    if own.preprocess not in (None, found):
        raise OptionsError(
            f"[cloud.convert] preprocess is not what the variants of {bundle.path} do to their inputs",
            advice="Leave it out: a release does what the bundle does.",
        )
    return found


def _trainable(bundle: Bundle) -> TrainableOptions | None:
    if TRAINABLE not in [variant.id for variant in bundle.manifest.variants]:
        return None
    found = _kept(bundle, TRAINABLE, TrainableOptions)
    if found is None:
        raise OptionsError(
            f"{bundle.path} does not say how it was converted: an earlier version made it",
            advice="Convert it again, and begin a new run.",
        )
    return found


def _kept(bundle: Bundle, name: str, kind: type[Settings]) -> Settings | None:
    """An option of the conversion, as the manifest keeps it."""
    table = bundle.manifest.options.get(name)
    if table is None:
        return None
    given = {key: value for key, value in table.items() if value is not None}
    return build(kind, given, f"{bundle.path}: options of {name}")


def _labels(bundle: Bundle) -> tuple[str, ...]:
    outputs = [tensor for signature in bundle.manifest.signatures.values() for tensor in signature.outputs]
    return next((tensor.labels for tensor in outputs if tensor.labels), ())
