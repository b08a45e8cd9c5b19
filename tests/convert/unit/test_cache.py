"""Kept conversions: what changes a key, what a hit checks. No framework; the golden bundle."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile_files import ONE, onnx, onnx_tensor

from edgeloop.bundle import MANIFEST, PROOF, Scheme, read_bundle
from edgeloop.convert import cache
from edgeloop.convert.sources.safety_onnx import external_files
from edgeloop.user_cache import CacheKind, cache_folder, entries


@dataclass(frozen=True)
class Asked:
    schemes: tuple[Scheme, ...] = (Scheme.INT8,)
    calibration: Path | None = None
    release: int = 1
    cache: bool = True
    limits: int = 7


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept" / "conversions"


@pytest.fixture
def bundle(root):
    return read_bundle(root / "tests" / "golden" / "bundle-1")


def key(tmp_path, digest="d", packages=("numpy",), environments=(), **options):
    return cache.cache_key(tmp_path / "m.keras", digest, Asked(**options), packages, environments)


def test_a_key_follows_model_options_data_and_versions_and_nothing_else(tmp_path):
    data = tmp_path / "cal.npz"
    data.write_bytes(b"1")
    plain = key(tmp_path, calibration=data)
    assert plain == key(tmp_path, calibration=data, cache=False, limits=8)
    others = [
        key(tmp_path, digest="e", calibration=data),
        key(tmp_path, calibration=data, schemes=(Scheme.INT8, Scheme.DYNAMIC)),
        key(tmp_path, calibration=data, release=2),
        key(tmp_path, calibration=data, packages=()),
        key(tmp_path),
    ]
    moved = tmp_path / "elsewhere.npz"
    moved.write_bytes(b"1")
    assert key(tmp_path, calibration=moved) == plain
    data.write_bytes(b"2")
    others.append(key(tmp_path, calibration=data))
    assert plain not in others
    assert len(set(others)) == len(others)


def test_a_key_follows_what_an_onnx_file_keeps_beside_it(tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes(onnx(onnx_tensor((1,), ONE), onnx_tensor((2,), location="w.bin"), nested=True))
    assert external_files(model) == ()  # not there: nothing to follow, and convert refuses it
    keys = []
    for content in (b"12345678", b"87654321"):
        (tmp_path / "w.bin").write_bytes(content)
        assert external_files(model) == (tmp_path / "w.bin",)
        keys.append(cache.cache_key(model, "d", Asked(), (), beside=external_files(model)))
    assert len({*keys, cache.cache_key(model, "d", Asked(), ())}) == 3


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "x" * 5000, "loop", "folder", "a\0b", ""])
def test_a_file_that_is_refused_is_not_read_for_a_key(tmp_path, location):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder" / "m.onnx").write_bytes(onnx(onnx_tensor((2,), location=location)))
    (tmp_path / "w.bin").write_bytes(b"12345678")
    assert external_files(tmp_path / "folder" / "m.onnx") == ()


def test_a_key_follows_the_packages_of_the_device_environment(tmp_path):
    site = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    python = tmp_path / "env" / "bin" / "python"
    for version in ("1.0", "2.0"):
        shutil.rmtree(site, ignore_errors=True)
        info = site / f"tflite_runtime-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tflite-runtime\nVersion: {version}\n")
        made = key(tmp_path, environments=[python])
        assert made != key(tmp_path)
        (tmp_path / version).write_text(made)
    assert (tmp_path / "1.0").read_text() != (tmp_path / "2.0").read_text()


def test_a_kept_bundle_comes_back_whole_with_its_notes(tmp_path, bundle):
    k = "a" * 64
    assert cache.find(k, tmp_path / "out") is None
    cache.keep(k, bundle, ["a note"], {"report.html": b"<p>"})
    found = cache.find(k, tmp_path / "out")
    assert found.bundle.manifest == bundle.manifest
    assert (found.notes, found.beside) == (("a note",), {"report.html": b"<p>"})
    assert (tmp_path / "out" / PROOF).read_bytes() == (bundle.path / PROOF).read_bytes()


def test_a_hit_leaves_an_equal_bundle_alone_and_mends_a_damaged_one(tmp_path, bundle):
    k, out = "a" * 64, tmp_path / "out"
    cache.keep(k, bundle, [], {})
    cache.find(k, out)
    before = (out / MANIFEST).stat().st_ino
    cache.find(k, out)
    assert (out / MANIFEST).stat().st_ino == before
    victim = next(out / name for name in bundle.manifest.files)
    victim.write_bytes(b"damaged")
    cache.find(k, out)
    assert read_bundle(out).manifest == bundle.manifest


@pytest.mark.parametrize("damage", ["a file", "the manifest", "the record"])
def test_a_damaged_entry_is_no_entry(tmp_path, folder, bundle, damage):
    k = "a" * 64
    cache.keep(k, bundle, [], {})
    entry = folder / k
    victim = {
        "a file": entry / "bundle" / next(iter(bundle.manifest.files)),
        "the manifest": entry / "bundle" / MANIFEST,
        "the record": entry / "record.json",
    }[damage]
    victim.write_bytes(b"{")
    assert cache.find(k, tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


def test_the_cache_is_the_users_alone(folder, bundle):
    cache.keep("a" * 64, bundle, [], {})
    assert folder.stat().st_mode & 0o077 == 0


def test_a_kept_conversion_is_listed_by_its_model(bundle):
    cache.keep("a" * 64, bundle, [], {})
    (entry,) = entries()
    size = sum(file.stat().st_size for file in bundle.path.iterdir())
    assert (entry.kind, entry.title) == (CacheKind.CONVERSIONS, bundle.manifest.source["file"])
    assert size < entry.bytes < size + 1000  # and its record


def test_above_the_limit_the_conversion_used_longest_ago_goes_and_no_other_entry(bundle, monkeypatch):
    measured = cache_folder(CacheKind.SPEEDS) / "a.json"
    measured.parent.mkdir(parents=True)
    measured.write_bytes(b"{}")
    os.utime(measured, (1, 1))
    for letter in "ab":
        cache.keep(letter * 64, bundle, [], {})
    os.utime(cache_folder(CacheKind.CONVERSIONS) / ("a" * 64), (2, 2))
    monkeypatch.setattr(cache, "LIMIT_BYTES", 2 * entries([CacheKind.CONVERSIONS])[0].bytes)
    cache.keep("c" * 64, bundle, [], {})
    assert {entry.path.name[0] for entry in entries([CacheKind.CONVERSIONS])} == {"b", "c"}
    assert measured.exists()
