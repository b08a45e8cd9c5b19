"""What `-v` shows of any verb: children, files and the cache."""

import logging
import os
import re

import pytest

from edgeloop.atomic import new_folder, write_file
from edgeloop.processes.command import run_command
from edgeloop.runtime import program
from edgeloop.user_cache import FOLDER


@pytest.fixture
def logged(caplog):
    """What was logged under `edgeloop.*` so far."""
    caplog.set_level(logging.INFO, "edgeloop")
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("edgeloop.")]


def test_a_child_is_logged_with_its_command_its_end_and_its_time(logged):
    run_command(["sh", "-c", "exit 3"], timeout_s=10)
    started, ended = logged()
    (pid,) = re.fullmatch(r"process (\d+) started: sh -c exit 3", started).groups()
    assert re.fullmatch(rf"process {pid} ended: exit code 3, after \d+\.\d s", ended)


def test_files_and_folders_are_logged_when_they_are_written(logged, tmp_path):
    write_file(tmp_path / "f", b"abc")
    with new_folder(tmp_path / "d"):
        pass
    assert logged() == [f"wrote {tmp_path / 'f'}, 3 bytes", f"wrote the folder {tmp_path / 'd'}"]


def test_a_look_into_the_cache_is_logged_as_a_miss_or_a_hit(logged, tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, os.fspath(tmp_path))
    path = program.local_program()
    assert program.local_program() == path
    miss, written, hit = logged()
    assert (miss, hit) == (f"not in the cache: {path}", f"found in the cache: {path}")
    assert written.startswith(f"wrote {path}, ")
