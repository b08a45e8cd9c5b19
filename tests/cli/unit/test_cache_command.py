"""`edgeloop cache`: what it lists, and what it removes."""

import json
import os

import pytest

from edgeloop import cli
from edgeloop.runtime.program import local_program
from edgeloop.user_cache import CacheKind, cache_folder


@pytest.fixture(autouse=True)
def speeds(tmp_path, monkeypatch):
    """Two measurements: one not used for a year, and one used now."""
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    folder = cache_folder(CacheKind.SPEEDS)
    folder.mkdir(parents=True)
    for name in ("old.json", "new.json"):
        (folder / name).write_text(json.dumps({"device": "ssh:pi", "speeds": []}))
    os.utime(folder / "old.json", (1, 1))
    return folder


def document(capfd, *arguments):
    assert cli.run(["cache", *arguments, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def names(rows):
    return sorted(row["name"] for row in rows)


def test_every_kind_is_listed_with_its_size_and_last_use(capfd):
    program = local_program()
    said = document(capfd)
    assert names(said["entries"]) == sorted([program.name, "new.json", "old.json"])
    row = next(row for row in said["entries"] if row["name"] == "old.json")
    assert row == {"kind": "speeds", "name": "old.json", "of": "ssh:pi", "bytes": 34, "used_s": 1.0}
    assert cli.run(["cache"]) == 0
    printed = capfd.readouterr().out
    assert "ssh:pi" in printed and "days ago" in printed


def test_entries_not_used_for_so_many_days_are_removed(capfd, speeds):
    said = document(capfd, "--prune", "--older-than-days", "30")
    assert (names(said["removed"]), names(said["entries"])) == (["old.json"], ["new.json"])
    assert [file.name for file in speeds.iterdir()] == ["new.json"]


def test_prune_alone_removes_all_but_the_program_that_runs_now(capfd):
    program = local_program()
    said = document(capfd, "--prune")
    assert names(said["removed"]) == ["new.json", "old.json"]
    assert names(said["entries"]) == [program.name]


def test_a_kind_that_is_named_is_listed_and_removed_alone(capfd):
    assert document(capfd, "--kind", "conversions", "--prune")["removed"] == []
    assert len(document(capfd, "--kind", "speeds")["entries"]) == 2


def test_what_to_remove_without_prune_is_exit_2(capfd):
    assert cli.run(["cache", "--older-than-days", "3"]) == 2
    assert "Add --prune" in capfd.readouterr().err
    assert cli.run(["cache", "--kind", "pictures"]) == 2


@pytest.mark.parametrize("option", ["--older-than-days", "--keep-mb"])
def test_less_than_nothing_is_refused_and_removes_nothing(capfd, speeds, option):
    assert cli.run(["cache", "--prune", option, "-1"]) == 2
    assert f"{option} is -1" in capfd.readouterr().err
    assert len(list(speeds.iterdir())) == 2
