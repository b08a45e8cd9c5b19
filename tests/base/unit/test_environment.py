"""Environments are made by one process at a time."""

import pytest

from edgeloop.errors import MissingExtra, WriteError
from edgeloop.runtime import environment


def test_two_processes_do_not_make_one_environment_at_once(tmp_path):
    with (
        environment.one_at_a_time(tmp_path / "env"),
        pytest.raises(MissingExtra, match=r"for 0\.1 s"),
        environment.one_at_a_time(tmp_path / "env", timeout_s=0.1),
    ):
        raise AssertionError("both were let in")
    with environment.one_at_a_time(tmp_path / "env", timeout_s=0.1):
        pass


def test_a_place_that_cannot_exist_is_a_write_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"env\.lock"), environment.one_at_a_time(tmp_path / "file" / "env"):
        raise AssertionError("it was let in")
