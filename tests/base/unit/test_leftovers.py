"""What a killed process leaves behind is removed by the next, and nothing that anybody still uses."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgeloop.atomic import new_folder
from edgeloop.leftovers import OLD_S, OWN, held, lasting_temporary_folder, remove_leftovers, temporary_folder

HOLD = """
import sys, time
from pathlib import Path
from edgeloop.atomic import new_folder
from edgeloop.leftovers import temporary_folder
with temporary_folder(sys.argv[1]) as folder, new_folder(sys.argv[1] + "/bundle") as bundle:
    (Path(folder) / "f").touch()
    (bundle / "f").touch()
    print(folder, bundle, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def child(tmp_path):
    """A process with a temporary folder and a bundle that it writes, both long begun; and these two."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=pipe, stdout=pipe, text=True) as process:
        folders = process.stdout.readline().split()
        for folder in folders:
            os.utime(folder, (0, 0))
        yield process, folders
        process.kill()


def next_one(tmp_path):
    with temporary_folder(str(tmp_path)), new_folder(tmp_path / "bundle") as bundle:
        (bundle / "g").touch()
        return [entry.name for entry in tmp_path.iterdir()]


def test_the_folders_of_a_killed_process_go_with_the_next_one(child, tmp_path):
    process, folders = child
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert all(Path(folder).is_dir() for folder in folders), "a kill cleans nothing"
    assert len(next_one(tmp_path)) == 2, "its own"
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_the_folders_of_a_living_process_stay(child, tmp_path):
    next_one(tmp_path)
    assert all(Path(folder, "f").is_file() for folder in child[1])


def test_a_folder_that_may_be_about_to_be_locked_stays(tmp_path):
    for name, age_s in (("edgeloop-tmp-00000000", 0), ("edgeloop-tmp-11111111", OLD_S + 1), ("edgeloop-bug-1", 1e6)):
        (tmp_path / name).mkdir()
        was = (tmp_path / name).stat().st_mtime - age_s
        os.utime(tmp_path / name, (was, was))
    remove_leftovers(str(tmp_path), OWN)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["edgeloop-bug-1", "edgeloop-tmp-00000000"]


def test_a_link_to_a_folder_is_not_followed(tmp_path):
    target = tmp_path / "of somebody else"
    target.mkdir()
    os.utime(target, (0, 0))
    (tmp_path / "edgeloop-tmp-00000000").symlink_to(target)
    remove_leftovers(str(tmp_path), OWN)
    assert target.is_dir()


def test_one_at_a_time_holds_a_folder(tmp_path):
    with held(tmp_path) as first, held(tmp_path) as second:
        assert (first, second) == (True, False)
    with held(tmp_path) as third:
        assert third


def test_a_temporary_folder_goes_with_its_block_whatever_ends_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), temporary_folder(str(tmp_path)) as folder:
        assert re.fullmatch(OWN, Path(folder).name)
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_outlives_a_command_has_the_users_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "edgeloop-tmp-00000000"))
    with lasting_temporary_folder():
        assert os.environ["TMPDIR"] == str(tmp_path)
    assert os.environ["TMPDIR"].startswith(f"{tmp_path}/")


def test_a_command_keeps_its_temporary_files_in_one_folder_of_its_own(tmp_path, monkeypatch):
    from edgeloop import cli

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with cli._own_temporary_folder():
        tempfile.mkdtemp()
        (own,) = tmp_path.iterdir()
        assert len(list(own.iterdir())) == 1 and os.environ["TMPDIR"] == str(own)
    assert not list(tmp_path.iterdir())
    assert (tempfile.gettempdir(), os.environ["TMPDIR"]) == (str(tmp_path), str(tmp_path))
