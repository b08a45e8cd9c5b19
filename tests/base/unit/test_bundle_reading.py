"""Reading a bundle: what is refused and how it is called, what is overlooked on purpose."""

import copy
import hashlib
import json
import os
from pathlib import Path

import pytest

from edgeloop.bundle import Format, Kind, Scheme, file_entries, is_bundle, parse_manifest, read_bundle
from edgeloop.canonical import LIMIT_BYTES, canonical_json
from edgeloop.errors import IntegrityError, ModelError

CONTENT = {
    "float32.tflite": b"TFL3 float",
    "int8.tflite": b"TFL3 int8",
    "tfjs/model.json": b"{}",
    "tfjs/w.bin": b"\0\1",
}


def variant(id, entry, files, format="tflite", scheme="float32"):
    return {
        "id": id, "entry": entry, "files": files, "format": format, "scheme": scheme, "signatures": ["infer"],
        "io": {"x": {"dtype": "float32", "scale": 0.5, "zero_point": 3}}, "requires": {"runtimes": ["litert"]},
    }  # fmt: skip


MANIFEST = {
    "format": "edgeloop-bundle/1",
    "name": "linear",
    "version": 3,
    "source": {"file": "linear.keras", "format": "keras", "sha256": "00"},
    "files": {name: {"bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for name, b in CONTENT.items()},
    "signatures": {
        "infer": {
            "inputs": [{"name": "x", "shape": [None, 2], "dtype": "float32", "range": [0, 1], "kind": "tabular"}],
            "outputs": [{"name": "y", "shape": [None, 2], "dtype": "float32", "labels": ["a", "b"]}],
        }
    },
    "variants": [
        variant("float32", "float32.tflite", ["float32.tflite"]),
        variant("int8", "int8.tflite", ["int8.tflite"], scheme="int8"),
        variant("tfjs", "tfjs/model.json", ["tfjs/model.json", "tfjs/w.bin"], format="tfjs"),
    ],
    "weights": [{"name": "w", "keras_path": "dense/kernel", "shape": [2, 2], "dtype": "float32", "trainable": True}],
    "license": {"model": "MIT", "data": None},
    "toolchain": {"edgeloop": "0.1.0"},
}


@pytest.fixture
def manifest():
    return copy.deepcopy(MANIFEST)


@pytest.fixture
def bundle(tmp_path, manifest):
    """A folder with every file of CONTENT; `bundle.write(manifest)` changes what it says of itself."""
    return WrittenBundle(tmp_path / "linear", manifest)


class WrittenBundle:
    def __init__(self, path: Path, manifest: dict):
        self.path = path
        for name, data in CONTENT.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        self.write(manifest)

    def write(self, manifest):
        (self.path / "manifest.json").write_bytes(canonical_json(manifest))


def test_a_whole_bundle_is_read_as_it_was_written(bundle):
    (bundle.path / "proof.json").write_text("{}")
    (bundle.path / "manifest.json.sig").write_text("SSHSIG")
    read = read_bundle(bundle.path)
    assert (read.manifest.name, read.manifest.version) == ("linear", 3)
    assert read.manifest_sha256 == hashlib.sha256((bundle.path / "manifest.json").read_bytes()).hexdigest()
    assert [(v.id, v.format, v.scheme) for v in read.manifest.variants] == [
        ("float32", Format.TFLITE, Scheme.FLOAT32),
        ("int8", Format.TFLITE, Scheme.INT8),
        ("tfjs", Format.TFJS, Scheme.FLOAT32),
    ]
    (x,), (y,) = read.manifest.signatures["infer"].inputs, read.manifest.signatures["infer"].outputs
    assert (x.shape, x.range, x.kind, y.labels, y.kind) == ((None, 2), (0.0, 1.0), Kind.TABULAR, ("a", "b"), Kind.OTHER)
    assert read.variant("int8").io["x"].zero_point == 3
    assert read.manifest.files == file_entries(bundle.path)
    assert is_bundle(bundle.path)
    with pytest.raises(ModelError, match=r"no variant 'int4'\. Choose one of: float32, int8, tfjs"):
        read.variant("int4")


def test_what_to_bytes_writes_is_read_to_an_equal_manifest(manifest):
    read = parse_manifest(canonical_json(manifest))
    assert parse_manifest(read.to_bytes()) == read
    assert parse_manifest(read.to_bytes()).to_bytes() == read.to_bytes()


# path in the manifest to replace, new value, words of the refusal
BROKEN_MANIFESTS = [
    (["format"], "edgeloop-bundle/2", "has the format 'edgeloop-bundle/2'"),
    (["format"], None, "has the format None"),
    (["version"], -1, "does not follow the format"),
    (["version"], True, "does not follow the format"),
    (["version"], "3", "does not follow the format"),
    (["version"], 2**53, "from 0 to 9007199254740991"),
    (["name"], 7, "does not follow the format"),
    (["files"], [], "does not follow the format"),
    (["files", "int8.tflite"], 9, "does not follow the format"),
    (["variants"], {}, "does not follow the format"),
    (["variants", 0, "files"], [1], "does not follow the format"),
    (["variants", 0, "files"], "abc", "expected a list"),
    (["variants", 0, "format"], [], "does not follow the format"),
    (["variants", 0, "io", "x", "scale"], "nan", "does not follow the format"),
    (["variants", 0, "requires"], [], "does not follow the format"),
    (["variants", 0, "entry"], "absent.tflite", "names ['absent.tflite'], which the manifest does not list"),
    (["variants", 0, "entry"], "int8.tflite", "is not one of its own files"),
    (["variants", 0, "files"], [], "is not one of its own files"),
    (["variants", 0, "id"], "int8", "gives two variants one id"),
    (["signatures", "infer"], None, "does not follow the format"),
    (["signatures", "infer", "inputs", 0, "shape"], [-1, 2], "does not follow the format"),
    (["signatures", "infer", "inputs", 0, "range"], ["0", "1"], "does not follow the format"),
    (["weights", 0, "shape"], [None], "does not follow the format"),
]


@pytest.mark.parametrize(("where", "value", "words"), BROKEN_MANIFESTS, ids=lambda v: json.dumps(v))
def test_a_manifest_that_breaks_its_rules_is_refused(bundle, manifest, where, value, words):
    place = manifest
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    bundle.write(manifest)
    with pytest.raises(ModelError) as refused:
        read_bundle(bundle.path)
    assert words in str(refused.value)
    assert refused.value.exit_code == 4


@pytest.mark.parametrize("key", ["name", "version", "source", "files", "signatures", "variants"])
def test_a_manifest_without_a_required_key_is_refused(manifest, key):
    del manifest[key]
    with pytest.raises(ModelError, match=f"does not follow the format .KeyError: '{key}'"):
        parse_manifest(canonical_json(manifest))


@pytest.mark.parametrize(
    "name",
    ["../out", "a/../../out", "/etc/passwd", "", ".", "./a", "a//b", "a/", "a\\b", "c:x", "a\nb", "a\0b",
     "manifest.json", "proof.json", "manifest.json.sig"],
)  # fmt: skip
def test_a_path_that_leads_out_of_the_bundle_is_refused(manifest, name):
    manifest["files"][name] = {"bytes": 1, "sha256": "00"}
    with pytest.raises(ModelError, match="Expected a relative POSIX path") as refused:
        parse_manifest(canonical_json(manifest))
    assert refused.value.exit_code == 4


def raw(old: bytes, new: bytes):
    """Change the manifest's bytes: what canonical JSON itself cannot write."""

    def change(path: Path) -> None:
        data = (path / "manifest.json").read_bytes()
        assert old in data
        (path / "manifest.json").write_bytes(data.replace(old, new))

    return change


def flip_a_bit(path: Path) -> None:
    data = bytearray((path / "int8.tflite").read_bytes())
    data[5] ^= 1
    (path / "int8.tflite").write_bytes(data)


def link_a_file(path: Path) -> None:
    (path / "int8.tflite").rename(path.parent / "int8.tflite")
    (path / "int8.tflite").symlink_to(path.parent / "int8.tflite")


def link_a_folder(path: Path) -> None:
    (path / "tfjs").rename(path.parent / "tfjs")
    (path / "tfjs").symlink_to(path.parent / "tfjs")


def link_the_manifest(path: Path) -> None:
    (path / "manifest.json").rename(path.parent / "m.json")
    (path / "manifest.json").symlink_to(path.parent / "m.json")


def remove_every_variant(path: Path) -> None:
    for name in CONTENT:
        (path / name).unlink()


BROKEN_FOLDERS = {
    "a repeated key": (raw(b'"version":3', b'"version":3,"version":4'), ModelError, "a key appears twice"),
    "NaN": (raw(b'"version":3', b'"version":NaN'), ModelError, "NaN"),
    "a number too large": (raw(b'"scale":0.5', b'"scale":1e999'), ModelError, "is not valid JSON"),
    "a manifest over the limit": (
        raw(b'{"files"', b" " * LIMIT_BYTES + b'{"files"'),
        ModelError,
        "more than the limit",
    ),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), ModelError, "has no manifest.json"),
    "a flipped bit": (flip_a_bit, IntegrityError, "int8.tflite has sha256"),
    "a file cut short": (lambda p: os.truncate(p / "int8.tflite", 3), IntegrityError, "and 3 bytes"),
    "a file not listed": (lambda p: (p / "tfjs/extra.js").write_text("x"), IntegrityError, "holds 'tfjs/extra.js'"),
    "a linked file": (link_a_file, IntegrityError, "int8.tflite is a link or a device"),
    "a linked folder": (link_a_folder, IntegrityError, "tfjs is a link or a device"),
    "a linked manifest": (link_the_manifest, IntegrityError, "manifest.json is a link or a device"),
    "a pipe": (lambda p: os.mkfifo(p / "pipe"), IntegrityError, "pipe is a link or a device"),
    "half a variant": (lambda p: (p / "tfjs/w.bin").unlink(), IntegrityError, "lacks 'tfjs/w.bin' of variant 'tfjs'"),
    "no variant at all": (remove_every_variant, IntegrityError, "lacks"),
}


@pytest.mark.parametrize("damage", BROKEN_FOLDERS)
def test_a_damaged_bundle_is_refused(bundle, damage):
    break_it, error, words = BROKEN_FOLDERS[damage]
    break_it(bundle.path)
    with pytest.raises(error) as refused:
        read_bundle(bundle.path)
    assert words in str(refused.value)
    assert refused.value.exit_code == {ModelError: 4, IntegrityError: 9}[error]
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        read_bundle(tmp_path / "nowhere")


def test_a_device_may_hold_one_whole_variant_only(bundle):
    for name in ("float32.tflite", "tfjs/model.json", "tfjs/w.bin"):
        (bundle.path / name).unlink()
    assert read_bundle(bundle.path).variant("int8").entry == "int8.tflite"


def test_an_absent_variant_may_share_files_with_the_one_a_device_holds(bundle, manifest):
    manifest["variants"].append(variant("tfjs-8", "tfjs/model8.json", ["tfjs/model8.json", "tfjs/w.bin"], "tfjs"))
    manifest["files"]["tfjs/model8.json"] = {"bytes": 2, "sha256": hashlib.sha256(b"[]").hexdigest()}
    bundle.write(manifest)
    assert [v.id for v in read_bundle(bundle.path).variants] == ["float32", "int8", "tfjs"]
    (bundle.path / "tfjs/model.json").unlink()  # now nothing explains w.bin
    with pytest.raises(IntegrityError, match=r"lacks 'tfjs/model.json' of variant 'tfjs'"):
        read_bundle(bundle.path)


def test_unknown_keys_are_ignored(manifest):
    known = parse_manifest(canonical_json(manifest))
    for place in (manifest, manifest["files"]["int8.tflite"], manifest["variants"][0], manifest["weights"][0],
                  manifest["signatures"]["infer"], manifest["signatures"]["infer"]["inputs"][0]):  # fmt: skip
        place["invented-later"] = {"any": ["thing"]}
    assert parse_manifest(canonical_json(manifest)) == known


@pytest.mark.parametrize(("key", "value"), [("format", "gguf"), ("scheme", "ternary")])
def test_variants_of_an_unknown_form_are_skipped(bundle, manifest, key, value):
    manifest["variants"][2][key] = value
    bundle.write(manifest)
    assert [v.id for v in read_bundle(bundle.path).manifest.variants] == ["float32", "int8"]
