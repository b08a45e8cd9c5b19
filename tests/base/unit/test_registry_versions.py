"""A registry's versions: the index that devices poll, and what a publisher writes."""

import json
import os

import pytest
from matrix_bundles import NAME, write_bundle

from edgeloop.bundle import MANIFEST, PROOF, SIGNATURE, read_bundle
from edgeloop.errors import DataError, IntegrityError, ModelError, OptionsError, WriteError
from edgeloop.registry import publish as publisher
from edgeloop.registry.publish import publish
from edgeloop.registry.versions.version_index import (
    LIMIT_BYTES,
    IndexedVersion,
    VersionIndex,
    parse_index,
    version_folder,
)

HASHES = {1: "1" * 64, 2: "2" * 64, 10: "a" * 64}
INDEX = VersionIndex("tiny", HASHES, {"canary": 10, "stable": 1})


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def test_an_index_reads_as_it_was_written_and_the_highest_number_is_the_latest():
    assert parse_index(INDEX.to_bytes()) == INDEX
    assert INDEX.find() == IndexedVersion(10, "a" * 64)  # by number, not by text
    assert INDEX.find("stable") == IndexedVersion(1, "1" * 64)
    assert INDEX.find().folder == version_folder(10) == "0010"
    with pytest.raises(DataError, match=r"no version of tiny under the alias 'beta'. .* canary, latest, stable"):
        INDEX.find("beta")
    with pytest.raises(DataError, match="offers no version of tiny"):
        VersionIndex("tiny").find()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "edgeloop-index/2"}, "has the format 'edgeloop-index/2'"),
        ({"versions": {"../../etc": {"manifest_sha256": "1" * 64}}}, "'../../etc' is no version"),
        ({"versions": {"-1": {"manifest_sha256": "1" * 64}}}, "'-1' is no version"),
        ({"versions": {"0": {"manifest_sha256": "1" * 64}}}, "'0' is no version"),
        ({"versions": {"٣": {"manifest_sha256": "1" * 64}}}, "is no version"),
        ({"versions": {"9007199254740992": {"manifest_sha256": "1" * 64}}}, "is no version"),
        ({"versions": {"1": {"manifest_sha256": "1" * 63 + "/"}}, "aliases": {}}, "is no sha256"),
        ({"versions": {"1": {"manifest_sha256": "1" * 64}, "01": {"manifest_sha256": "2" * 64}}}, "a version twice"),
        ({"versions": []}, "does not follow the format"),
        ({"aliases": {"stable": 3}}, "an alias of a version that is not there"),
        ({"aliases": {"stable": True}}, "an alias of a version that is not there"),
        ({"name": 3}, "a name that is no text"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(change, message):
    raw = {**json.loads(INDEX.to_bytes()), **change}
    with pytest.raises(DataError, match=message):
        parse_index(json.dumps(raw).encode())


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"a": NaN}', b"{" * 100_000, b" " * (LIMIT_BYTES + 1)])
def test_what_is_no_index_is_refused(data):
    with pytest.raises(DataError, match=r"index\.json"):
        parse_index(data)


def test_versions_lie_in_numbered_folders_and_the_index_names_them(tmp_path):
    registry = tmp_path / "registry"
    first = publish(write_bundle(tmp_path / "1", 1), registry)
    assert (first.folder, first.aliases, first.signed, first.unchanged) == (
        registry / NAME / "0001",
        ("latest",),
        False,
        False,
    )
    publish(write_bundle(tmp_path / "3", 3), registry, aliases=["canary"])
    second = publish(write_bundle(tmp_path / "2", 2), registry)
    assert second.aliases == ()
    index = parse_index((registry / NAME / "index.json").read_bytes())
    assert sorted(index.versions) == [1, 2, 3] and index.aliases == {"canary": 3}
    for version, sha256 in index.versions.items():
        assert read_bundle(registry / NAME / version_folder(version)).manifest_sha256 == sha256
    assert publish(tmp_path / "3", registry).unchanged
    assert not publish(tmp_path / "2", registry, aliases=["canary"]).unchanged
    assert parse_index((registry / NAME / "index.json").read_bytes()).aliases == {"canary": 2}


def test_a_version_is_published_once_and_its_signature_may_come_later(tmp_path):
    registry, bundle = tmp_path / "registry", write_bundle(tmp_path / "1", 1)
    publish(bundle, registry)
    (bundle / SIGNATURE).write_bytes(b"a signature")
    signed = publish(bundle, registry)
    assert signed.signed and not (signed.folder / PROOF).exists()
    with pytest.raises(IntegrityError, match=r"version 1 of tiny is published with other content. .* --release 2 or"):
        publish(write_bundle(tmp_path / "other", 1, labels=b"others"), registry)
    (signed.folder / MANIFEST).write_bytes(b"{}")  # what was damaged there is written again
    assert publish(bundle, registry).unchanged is False
    assert read_bundle(signed.folder).manifest.version == 1


def test_an_unsigned_or_partial_copy_takes_nothing_from_what_is_published(tmp_path):
    registry, bundle = tmp_path / "registry", write_bundle(tmp_path / "1", 1)
    (bundle / "other.tflite").unlink()
    publish(bundle, registry)
    write_bundle(tmp_path / "1", 1)
    (bundle / SIGNATURE).write_bytes(b"a signature")
    whole = publish(bundle, registry)
    assert not whole.unchanged and (whole.folder / "other.tflite").is_file()  # it was not there before
    (bundle / SIGNATURE).unlink()
    (bundle / "other.tflite").unlink()
    again = publish(bundle, registry)
    assert again.unchanged and again.signed and (again.folder / "other.tflite").is_file()
    (bundle / SIGNATURE).write_bytes(b"another signature")
    publish(bundle, registry)
    assert (again.folder / SIGNATURE).read_bytes() == b"another signature"
    assert (again.folder / "other.tflite").is_file()
    (bundle / SIGNATURE).unlink()
    write_bundle(tmp_path / "1", 1)
    (again.folder / "other.tflite").write_bytes(b"damaged")
    repaired = publish(bundle, registry)
    assert repaired.signed and not repaired.unchanged
    assert read_bundle(repaired.folder).manifest_sha256 == read_bundle(bundle).manifest_sha256


def test_a_folder_that_is_no_version_of_the_model_is_not_replaced(tmp_path):
    registry = tmp_path / "registry"
    notes = registry / NAME / "0001" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    for name in (None, "another"):
        if name:
            write_bundle(notes.parent, 1, name=name)
        with pytest.raises(WriteError, match=r"0001: what is there is no version of tiny. Move it away"):
            publish(write_bundle(tmp_path / "1", 1), registry)
    assert notes.read_text() == "mine" and not (registry / NAME / "index.json").exists()


def test_no_index_is_written_that_devices_would_refuse(tmp_path, monkeypatch):
    registry = tmp_path / "registry"
    publish(write_bundle(tmp_path / "1", 1), registry)
    before = (registry / NAME / "index.json").read_bytes()
    monkeypatch.setattr(publisher, "LIMIT_BYTES", len(before) + 10)
    with pytest.raises(WriteError, match=rf"devices read at most {len(before) + 10}\. Publish to a new registry"):
        publish(write_bundle(tmp_path / "2", 2), registry)
    assert (registry / NAME / "index.json").read_bytes() == before and not (registry / NAME / "0002").exists()


def test_a_damaged_bundle_or_an_odd_name_is_not_published(tmp_path):
    registry, bundle = tmp_path / "registry", write_bundle(tmp_path / "1", 1)
    for name in ("..", "a b", "a/b", "latest", ""):
        with pytest.raises(OptionsError, match="the bundle's name is"):
            publish(write_bundle(tmp_path / "named", 1, name=name), registry)
    with pytest.raises(OptionsError, match="--alias is 'latest'"):
        publish(bundle, registry, aliases=["latest"])
    (bundle / "float32.tflite").write_bytes(b"changed")
    with pytest.raises(IntegrityError):
        publish(bundle, registry)
    with pytest.raises(ModelError):
        publish(tmp_path / "nothing", registry)
    assert not registry.exists()


def test_a_publish_that_ends_anywhere_leaves_the_index_of_before_or_of_after(tmp_path, monkeypatch):
    """Every rename is a moment at which a kill may come; a version is whole before the index names it."""
    rename = os.replace
    for fatal in range(1, 20):
        registry, calls = tmp_path / str(fatal), iter(range(1, 100))
        publish(write_bundle(tmp_path / f"{fatal}-1", 1), registry)

        def die(*paths, calls=calls, fatal=fatal):
            if next(calls) == fatal:
                raise KeyboardInterrupt
            return rename(*paths)

        monkeypatch.setattr(os, "replace", die)
        done = False
        try:
            publish(write_bundle(tmp_path / f"{fatal}-2", 2), registry)
            done = True
        except KeyboardInterrupt:
            pass
        monkeypatch.setattr(os, "replace", rename)
        index = parse_index((registry / NAME / "index.json").read_bytes())
        for version, sha256 in index.versions.items():
            assert read_bundle(registry / NAME / version_folder(version)).manifest_sha256 == sha256
        assert sorted(index.versions) == ([1, 2] if done else [1])
        publish(tmp_path / f"{fatal}-2", registry)
        assert read_bundle(registry / NAME / "0002").manifest.version == 2
        if done:
            break
    assert 2 < fatal < 19
