"""A killed or failing writer leaves the old content or the new, whole."""

import ctypes
import os
import random
import select
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeloop import atomic
from edgeloop.atomic import new_folder, write_file
from edgeloop.errors import WriteError

FILES = 12


def write_generation(target, generation):
    with new_folder(target) as folder:
        (folder / "sub").mkdir()
        for n in range(FILES):
            (folder / "sub" / f"{n}.txt").write_text(f"{generation} " * 500)


def generations(target):
    """Every number that stands in the folder; ONE number in FILES files is a whole generation."""
    texts = [path.read_text() for path in sorted((target / "sub").iterdir())]
    assert len(texts) == FILES
    assert {len(text.split()) for text in texts} == {500}
    return {int(word) for text in texts for word in text.split()}


def test_a_writer_killed_at_any_moment_leaves_one_whole_generation(tmp_path):
    target, chance = tmp_path / "bundle", random.Random(7)
    for start in range(0, 400_000, 10_000):
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                atomic.os.fsync = lambda _: None  # of no use against a kill, and kills would mostly fall into it
                for generation in range(start + 1, start + 10_000):
                    write_generation(target, generation)
                    os.write(tell, b".")
            finally:
                os._exit(1)  # the child must not go on as a second pytest
        assert select.select([told], [], [], 60)[0], "the writer did not replace the folder once in 60 s"
        time.sleep(chance.uniform(0.0, 0.005))  # a generation takes 1 to 2 ms
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(told)
        os.close(tell)
        assert os.WIFSIGNALED(status), "the writer must be at work when it is killed"
        (generation,) = generations(target)
        assert generation > start


@pytest.mark.parametrize("exchange", [True, False], ids=["renameat2", "two renames"])
def test_a_folder_takes_the_place_of_another_and_leaves_nothing_beside_it(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())  # a C library without renameat2
    target = tmp_path / "new" / "bundle"
    write_generation(target, 1)
    (target / "old-only").write_text("x")
    write_generation(target, 2)
    assert generations(target) == {2}
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]
    assert not (target / "old-only").exists()
    assert target.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_block_that_raises_leaves_the_old_folder(tmp_path, error):
    target = tmp_path / "bundle"
    write_generation(target, 1)
    with pytest.raises(error), new_folder(target) as folder:
        (folder / "half").write_text("x")
        raise error
    assert generations(target) == {1}
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_block_that_raises_leaves_no_folder_where_none_was(tmp_path):
    with pytest.raises(ValueError), new_folder(tmp_path / "bundle"):
        raise ValueError
    assert os.listdir(tmp_path) == []


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    model = tmp_path / "mine.keras"
    model.write_bytes(b"weights")
    with pytest.raises(WriteError, match="a file is there"), new_folder(model):
        pytest.fail("the block must not begin")
    assert model.read_bytes() == b"weights"
    assert os.listdir(tmp_path) == ["mine.keras"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    write_generation(tmp_path / "disk", 1)
    link = tmp_path / "bundle"
    link.symlink_to("disk")
    write_generation(link, 2)
    assert link.is_symlink()
    assert generations(tmp_path / "disk") == {2}


def test_a_file_is_replaced_whole_and_readable_by_others(tmp_path):
    target = tmp_path / "deep" / "proof.json"
    write_file(target, b"old")
    write_file(target, b"new")
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == ["proof.json"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_writers_of_one_file_at_once_leave_it_whole(tmp_path):
    target, contents = tmp_path / "speeds.json", [bytes([n]) * 100_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: write_file(target, data), contents * 5))
    assert target.read_bytes() in contents
    assert os.listdir(tmp_path) == ["speeds.json"]


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path):
    target = tmp_path / "state.json"
    write_file(target, b"old")
    child = os.fork()
    if child == 0:
        atomic.os.replace = lambda *_: os._exit(9)  # as a kill between the write and the rename
        write_file(target, b"new")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(os.listdir(tmp_path)) == 2
    atomic.sweep(str(tmp_path))
    assert os.listdir(tmp_path) == ["state.json"] and target.read_bytes() == b"old"


def test_a_name_as_long_as_a_file_system_takes_is_written(tmp_path):
    target = tmp_path / ("é" * 127)
    write_file(target, b"x")
    assert target.read_bytes() == b"x"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, call):
    target = tmp_path / "proof.json"
    write_file(target, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, call, full)
    with pytest.raises(WriteError, match=r"cannot write .*proof.json: No space left on device"):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["proof.json"]


def test_a_place_below_a_file_is_a_write_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="cannot write"):
        write_file(tmp_path / "file" / "x.json", b"")
    with pytest.raises(WriteError, match="cannot write"), new_folder(tmp_path / "file" / "bundle"):
        pytest.fail("the block must not begin")
