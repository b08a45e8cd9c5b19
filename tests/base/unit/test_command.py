"""A foreign command, run to its end."""

from pathlib import Path

import pytest
from devices import eventually

from edgeloop.processes.command import run_command

SH = ["sh", "-c"]


def test_it_gets_its_input_and_both_its_outputs_come_back():
    done = run_command([*SH, "tr a-z A-Z; echo said >&2"], b"given", timeout_s=10)
    assert (done.out, done.err, done.status.ok) == (b"GIVEN", b"said\n", True)


@pytest.mark.parametrize(
    ("script", "how", "last_words"),
    [
        ("echo out; echo first >&2; echo last >&2; exit 3", "exit code 3", "last"),
        ("echo out; exit 3", "exit code 3", "out"),
        ("exit 3", "exit code 3", "exit code 3"),
        ("kill -SEGV $$", "signal SIGSEGV", "signal SIGSEGV"),
    ],
)
def test_one_that_fails_says_how_it_ended_and_its_last_words(script, how, last_words):
    done = run_command([*SH, script], timeout_s=10)
    assert (done.status.ok, done.status.how, done.last_words) == (False, how, last_words)


def test_one_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    script = f"echo half way >&2; sleep 60 & echo $! >{tmp_path}/pid; wait"
    with pytest.raises(TimeoutError, match=r"sh did not end within 2 s; its last words: half way"):
        run_command([*SH, script], timeout_s=2)
    assert eventually(lambda: not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists())


def test_one_that_is_not_there_is_an_os_error():
    with pytest.raises(FileNotFoundError):
        run_command(["no-such-program"], timeout_s=10)
