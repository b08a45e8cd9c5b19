"""The user's cache: where it lies, what it holds, what goes first."""

import json
import os
import time
from pathlib import Path

import pytest

from edgeloop.user_cache import ABANDONED_S, KINDS, CacheKind, cache_folder, entries, mark_used, prune


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entry(kind: CacheKind, name: str, content: bytes = b"{}", age_s: float = 0.0) -> Path:
    path = cache_folder(kind) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    used = time.time() - age_s
    os.utime(path, (used, used))
    return path


@pytest.mark.parametrize(
    ("named", "xdg", "found"),
    [("/a", "/b", "/a/programs"), ("", "/b", "/b/edgeloop/programs"), ("", "", "/home/me/.cache/edgeloop/programs")],
)
def test_the_folder_is_the_one_that_is_named_else_the_users(monkeypatch, named, xdg, found):
    for name, value in {"EDGELOOP_CACHE": named, "XDG_CACHE_HOME": xdg, "HOME": "/home/me"}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder(CacheKind.PROGRAMS) == Path(found)


def test_every_kind_of_entry_is_listed_with_what_it_is_of():
    assert set(KINDS) == set(CacheKind)
    conversion = cache_folder(CacheKind.CONVERSIONS) / "key"
    (conversion / "bundle").mkdir(parents=True)
    (conversion / "record.json").write_text(json.dumps({"model": "m.keras", "notes": []}))
    (conversion / "bundle" / "float32.tflite").write_bytes(b"x" * 1000)
    entry(CacheKind.PROGRAMS, "agent-1.pyz", b"PK", age_s=10)
    entry(CacheKind.SPEEDS, "1.json", json.dumps({"device": "ssh:pi", "speeds": []}).encode(), age_s=20)
    entry(CacheKind.SPEEDS, "2.json", b"{", age_s=30)
    found = [(one.kind.value, one.title) for one in entries()]
    assert found == [
        ("conversions", "m.keras"),
        ("programs", "program for devices"),
        ("speeds", "ssh:pi"),
        ("speeds", "damaged"),
    ]
    assert entries()[0].bytes == 1000 + (conversion / "record.json").stat().st_size


def test_what_was_used_longest_ago_goes_first():
    a, b, c = (entry(CacheKind.PROGRAMS, name, b"x" * 10, age_s=100 * n) for n, name in enumerate("abc"))
    assert [one.path for one in prune(older_than_s=150)] == [c]
    assert [one.path for one in prune(limit_bytes=10)] == [b]
    assert [one.path for one in entries()] == [a]
    assert prune(limit_bytes=0, spare=[a]) == [] and a.exists()
    assert [one.path for one in prune(limit_bytes=0)] == [a]
    assert entries() == []


def test_an_entry_that_is_used_is_young_again():
    old = entry(CacheKind.PROGRAMS, "a", age_s=1000)
    mark_used(old)
    assert prune(older_than_s=500) == [] and old.exists()


def test_only_the_kinds_that_are_named_are_pruned():
    program, speed = entry(CacheKind.PROGRAMS, "a"), entry(CacheKind.SPEEDS, "b")
    assert [one.path for one in prune([CacheKind.SPEEDS], limit_bytes=0)] == [speed]
    assert program.exists()


def test_what_is_being_written_is_no_entry_and_what_a_kill_left_is_one():
    entry(CacheKind.PROGRAMS, ".a.new", age_s=ABANDONED_S / 2)
    left = entry(CacheKind.PROGRAMS, ".b.new", age_s=ABANDONED_S + 60)
    assert [(one.path, one.title) for one in entries()] == [(left, "unfinished")]
    prune(limit_bytes=0)
    assert not left.exists()


def test_a_cache_that_is_not_there_is_empty(root):
    assert entries() == [] and prune(limit_bytes=0) == []
    assert not root.exists()
