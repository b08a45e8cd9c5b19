"""A bundle: one folder that holds a model in many variants, with what proves them. Format 1.

A device reads a bundle with the ground floor and NumPy alone: Python 3.9 syntax, no framework.
The format is specified in docs/bundle.md.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgeloop.canonical import AGAIN, LIMIT_BYTES, canonical_json, read_json
from edgeloop.errors import IntegrityError, ModelError
from edgeloop.formats import Format as Format
from edgeloop.formats import Scheme as Scheme
from edgeloop.hashes import digest, digest_of

FORMAT = "edgeloop-bundle/1"
LARGEST = 2**53 - 1  # of whole numbers, a release among them: beyond it JSON readers round (RFC 7493, 2.2)
EXPECTED = "Expected a bundle folder made by edgeloop convert."
MANIFEST, SIGNATURE, PROOF, REFERENCE = (
    "manifest.json",
    "manifest.json.sig",
    "proof.json",
    "reference.npz",
)
UNLISTED = frozenset({MANIFEST, SIGNATURE, PROOF})
MANIFEST_SHA256 = "manifest_sha256"  # the key of proof.json that says which manifest it belongs to
VOCABULARY = "vocabulary-"  # begins the name of a file with the words that are looked up before the model
INFERENCE, TRAIN = ("infer", "serving_default"), "train"  # names of signatures; the first of INFERENCE that is there
TRAINABLE = "trainable"  # the variant that devices train
PREPROCESS = "preprocess"  # with TRAINABLE, the options of a conversion that a manifest keeps


class Kind(str, enum.Enum):
    """What a tensor means to a person."""

    IMAGE = "image"
    AUDIO = "audio"
    TABULAR = "tabular"
    TOKENS = "tokens"
    OTHER = "other"


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output. `shape` has None where a dimension is free; `range` is (low, high) in real units."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    kind: Kind = Kind.OTHER
    range: tuple[float, float] | None = None
    layout: str | None = None
    sample_rate_hz: int | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signature:
    """A named entry point."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Quantization:
    """What a variant's own tensor holds. `scale` 0 means the numbers are not scaled."""

    dtype: str
    scale: float = 0.0
    zero_point: int = 0


@dataclass(frozen=True)
class Requirements:
    """What a machine needs to run a variant. `runtimes` are those it was proved on when converted."""

    runtimes: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()
    ram_bytes: int | None = None


@dataclass(frozen=True)
class Variant:
    """One form of the model. `entry` is the file a runtime opens, `files` all it needs.

    `shapes` are those of its tensors that the signature leaves free and this variant does not.
    """

    id: str
    entry: str
    files: tuple[str, ...]
    format: Format
    scheme: Scheme
    signatures: tuple[str, ...]
    io: Mapping[str, Quantization] = field(default_factory=dict)
    requires: Requirements = Requirements()
    notes: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Weight:
    """One array of the model, in `get_weights` order; batch-norm statistics included."""

    name: str
    keras_path: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool


@dataclass(frozen=True)
class FileEntry:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class LeftOut:
    """A variant that the conversion did not write, because it could not be made or did not agree: `reason` says why."""

    id: str
    format: Format
    scheme: Scheme
    reason: str


@dataclass(frozen=True)
class Manifest:
    """What a bundle is: no timestamps, no measurements, so equal input and toolchain give equal bytes."""

    name: str
    version: int
    source: Mapping[str, str]
    files: Mapping[str, FileEntry]
    signatures: Mapping[str, Signature]
    variants: tuple[Variant, ...]
    weights: tuple[Weight, ...] = ()
    license: Mapping[str, str | None] = field(default_factory=lambda: {"model": None, "data": None})
    toolchain: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    proof_sha256: str | None = None  # `proof_hash` of the proof.json beside it; None: an older writer's
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # PREPROCESS, TRAINABLE

    def variant(self, id: str) -> Variant:
        """The variant of that id.

        Raises:
            ModelError: There is none.
        """
        for variant in self.variants:
            if variant.id == id:
                return variant
        have = ", ".join(variant.id for variant in self.variants)
        raise ModelError(f"{self.name} has no variant {id!r}", advice=f"Choose one of: {have}.")

    def to_bytes(self) -> bytes:
        document = {"format": FORMAT, **asdict(self)}
        if not self.left_out:  # so that a bundle without any keeps the bytes it had before the field existed
            del document["left_out"]
        if self.proof_sha256 is None:
            del document["proof_sha256"]
        if not self.options:
            del document["options"]
        for variant in document["variants"]:
            if not variant["shapes"]:
                del variant["shapes"]
        return canonical_json(document)


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest was read and whose listed files were checked."""

    path: Path
    manifest: Manifest
    manifest_sha256: str

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants that are here: a device may hold one of many."""
        return tuple(v for v in self.manifest.variants if all(self.file(name).is_file() for name in v.files))

    def variant(self, id: str) -> Variant:
        """The variant of that id.

        Raises:
            ModelError: There is none.
        """
        return self.manifest.variant(id)

    def file(self, name: str) -> Path:
        return self.path / name


def is_bundle(path: str | Path) -> bool:
    return (Path(path) / MANIFEST).is_file()


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle folder's manifest and check every file against its size and sha256. No model is loaded.

    Raises:
        ModelError: No bundle there, an unknown format, a manifest that breaks its own rules.
        IntegrityError: A file or the proof differs from its hash, a file is missing for a variant that is partly there,
            or is not listed.

    Example:
        >>> bundle = read_bundle("m/")
        >>> bundle.file(bundle.variant("int8").entry)
        PosixPath('m/int8.tflite')
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(f"{path} does not exist", advice=EXPECTED)
    if not is_bundle(path):
        raise ModelError(f"{path} has no {MANIFEST}", advice=EXPECTED)
    with (path / MANIFEST).open("rb") as file:
        data = file.read(LIMIT_BYTES + 1)
    manifest = parse_manifest(data)
    _check_files(path, manifest)
    check_proof(path / PROOF, manifest)
    return Bundle(path, manifest, digest_of(data))


def parse_manifest(data: bytes) -> Manifest:
    """Manifest bytes to a value. Unknown keys are ignored and variants of an unknown format or scheme skipped.

    Raises:
        ModelError: Another format, a missing or mistyped field, an unsafe path.
    """
    raw = read_json(data, MANIFEST)
    if raw.get("format") != FORMAT:
        raise ModelError(
            f"{MANIFEST} has the format {raw.get('format')!r}, and edgeloop reads {FORMAT!r}",
            advice="Update edgeloop.",
        )
    try:
        manifest = _manifest(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise ModelError(f"{MANIFEST} does not follow the format ({type(e).__name__}: {e})", advice=AGAIN) from e
    for name in manifest.files:
        _safe(name)
    ids = [variant.id for variant in manifest.variants]
    if len(set(ids)) != len(ids):
        raise ModelError(f"{MANIFEST} gives two variants one id: {sorted(ids)}", advice=AGAIN)
    for variant in manifest.variants:
        unlisted = {variant.entry, *variant.files} - set(manifest.files)
        if unlisted:
            raise ModelError(
                f"variant {variant.id!r} names {sorted(unlisted)}, which the manifest does not list", advice=AGAIN
            )
        if variant.entry not in variant.files:
            raise ModelError(
                f"variant {variant.id!r} opens {variant.entry!r}, which is not one of its own files", advice=AGAIN
            )
        unknown = sorted(set(variant.signatures) - set(manifest.signatures))
        if unknown or not variant.signatures:
            raise ModelError(
                f"variant {variant.id!r} has the signatures {unknown or 'none'}, not the manifest's", advice=AGAIN
            )
    return manifest


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Size and hash of every file below `folder` that a manifest lists.

    Raises:
        IntegrityError: A link, or anything that is neither file nor folder.
    """
    names = sorted(_walk(folder) - UNLISTED)
    return {name: _entry(folder / name) for name in names}


def proof_hash(proof: Mapping[str, Any]) -> str:
    """What a manifest says of its proof.json: the sha256 of its canonical JSON without `manifest_sha256`.

    That key is the hash of the manifest, which cannot hold a hash of itself.
    """
    return digest_of(canonical_json({key: value for key, value in proof.items() if key != MANIFEST_SHA256}))


def check_proof(file: Path, manifest: Manifest) -> None:
    """A proof that is there is the manifest's own: who signs the manifest signs the proof."""
    if manifest.proof_sha256 is None or not file.is_file():
        return
    with file.open("rb") as opened:
        data = opened.read(LIMIT_BYTES + 1)
    try:
        found = proof_hash(read_json(data, PROOF))
    except (ModelError, ValueError, RecursionError):  # no JSON that has a canonical form
        found = "none"
    if found != manifest.proof_sha256:
        raise IntegrityError(
            f"{file} has the hash {found[:12]}, its manifest says {manifest.proof_sha256[:12]}",
            advice="The proof was changed or damaged: fetch the bundle again.",
        )


def _check_files(folder: Path, manifest: Manifest) -> None:
    present = _walk(folder) - UNLISTED
    unlisted = sorted(present - set(manifest.files))
    if unlisted:
        raise IntegrityError(
            f"{folder} holds {unlisted[0]!r}, which its manifest does not list", advice="Remove it, or convert again."
        )
    for name in sorted(present):
        found, listed = _entry(folder / name), manifest.files[name]
        if found != listed:
            raise IntegrityError(
                f"{folder / name} has sha256 {found.sha256[:12]}… and {found.bytes} bytes, its manifest says "
                f"{listed.sha256[:12]}… and {listed.bytes}",
                advice="The file was changed or damaged: fetch the bundle again.",
            )
    whole = [set(v.files) for v in manifest.variants if set(v.files) <= present]
    explained = set().union(*whole)  # an absent variant may share files with one that is here
    for variant in manifest.variants:
        missing = sorted(set(variant.files) - present)
        if missing and (not whole or (set(variant.files) & present) - explained):
            raise IntegrityError(
                f"{folder} lacks {missing[0]!r} of variant {variant.id!r}", advice="Fetch the bundle again."
            )


def _walk(folder: Path) -> set[str]:
    names: set[str] = set()
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(root) / name
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise IntegrityError(
                    f"{path} is a link or a device, and a bundle holds plain files only",
                    advice="Fetch the bundle again.",
                )
        names.update((Path(root) / name).relative_to(folder).as_posix() for name in files)
    return names


def _entry(path: Path) -> FileEntry:
    return FileEntry(path.stat().st_size, digest(path))


def _safe(name: str) -> None:
    path = PurePosixPath(name)
    if (
        not name
        or not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or path.as_posix() != name
        or re.search(r"[\\\x00-\x1f:]", name)
        or name in UNLISTED
    ):
        raise ModelError(
            f"{MANIFEST} lists the path {name!r}", advice="Expected a relative POSIX path inside the bundle."
        )


def _manifest(raw: Mapping[str, Any]) -> Manifest:
    known = [v for v in _list(raw["variants"]) if _known(Format, v["format"]) and _known(Scheme, v["scheme"])]
    return Manifest(
        name=_text(raw["name"]),
        version=_whole(raw["version"]),
        source={k: _text(v) for k, v in raw["source"].items()},
        files={k: FileEntry(_whole(v["bytes"]), _text(v["sha256"])) for k, v in raw["files"].items()},
        signatures={
            name: Signature(_specs(value["inputs"]), _specs(value["outputs"]))
            for name, value in raw["signatures"].items()
        },
        variants=tuple(_variant(v) for v in known),
        weights=tuple(
            Weight(
                _text(w["name"]), _text(w["keras_path"]), _shape(w["shape"]), _text(w["dtype"]), bool(w["trainable"])
            )
            for w in _list(raw.get("weights", []))
        ),
        license=dict(raw.get("license", {})),
        toolchain=dict(raw.get("toolchain", {})),
        left_out=tuple(
            LeftOut(_text(v["id"]), Format(v["format"]), Scheme(v["scheme"]), _text(v["reason"]))
            for v in _list(raw.get("left_out", []))
            if _known(Format, v["format"]) and _known(Scheme, v["scheme"])
        ),
        proof_sha256=_text(raw["proof_sha256"]) if raw.get("proof_sha256") is not None else None,
        options={name: dict(table) for name, table in raw.get("options", {}).items()},
    )


def _variant(raw: Mapping[str, Any]) -> Variant:
    requires = raw.get("requires", {})
    return Variant(
        id=_text(raw["id"]),
        entry=_text(raw["entry"]),
        files=tuple(map(_text, _list(raw["files"]))),
        format=Format(raw["format"]),
        scheme=Scheme(raw["scheme"]),
        signatures=tuple(map(_text, _list(raw["signatures"]))),
        io={
            name: Quantization(_text(q["dtype"]), _real(q.get("scale", 0)), int(_real(q.get("zero_point", 0))))
            for name, q in raw.get("io", {}).items()
        },
        requires=Requirements(
            tuple(_list(requires.get("runtimes", []))),
            tuple(_list(requires.get("cpu_features", []))),
            requires.get("ram_bytes"),
        ),
        notes=tuple(_list(raw.get("notes", []))),
        shapes={name: _shape(sizes, free=True) for name, sizes in raw.get("shapes", {}).items()},
    )


def _specs(raw: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=_text(t["name"]),
            shape=_shape(t["shape"], free=True),
            dtype=_text(t["dtype"]),
            kind=Kind(t["kind"]) if _known(Kind, t.get("kind")) else Kind.OTHER,
            range=tuple(map(_real, t["range"])) if t.get("range") else None,  # type: ignore[arg-type]
            layout=t.get("layout"),
            sample_rate_hz=t.get("sample_rate_hz"),
            labels=tuple(_list(t.get("labels", []))),
        )
        for t in _list(raw)
    )


def _shape(raw: Any, free: bool = False) -> Any:
    return tuple(None if d is None and free else _whole(d) for d in _list(raw))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {value!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise TypeError(f"expected a whole number from 0 to {LARGEST}, found {value!r}")
    return value


def _real(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"expected a number, found {value!r}")
    return float(value)


def _known(choices: type[enum.Enum], value: Any) -> bool:
    return value in {choice.value for choice in choices}
