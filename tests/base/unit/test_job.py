"""The child that meets the model: its events, its errors, and what happens at a limit. No framework; small programs."""

import os
import signal
import textwrap

import pytest

from edgeloop.errors import DataError, ModelError, OptionsError
from edgeloop.processes import sandbox
from edgeloop.processes.job import WorkerBug, run_job
from edgeloop.processes.sandbox import Limits, resident_bytes

MB = 1_000_000
# the interpreter itself is some 10 MB resident
SMALL = Limits(read_bytes=100 * MB, work_bytes=300 * MB, read_s=120, work_s=120)


@pytest.fixture
def program(tmp_path):
    def write(body: str) -> list[str]:
        file = tmp_path / "program.py"
        start = "import json, pickle, sys, time, os\ndef send(**e): print(json.dumps(e), flush=True)\n"
        file.write_text(start + "job = pickle.load(sys.stdin.buffer)\n" + textwrap.dedent(body))
        return [str(file)]

    return write


def test_the_job_goes_in_and_the_answer_comes_out_with_progress_and_words(program):
    seen, said = [], []
    done = run_job(
        program("send(progress=['x', 1, 2]); send(say='hello'); send(done={'twice': job * 2})"),
        21,
        SMALL,
        lambda *p: seen.append(p),
        said.append,
    )
    assert (done, seen, said) == ({"twice": 42}, [("x", 1, 2)], ["hello"])


def test_the_child_hashes_text_the_same_way_and_hears_nothing_of_pythons_environment(program, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    flags = "[sys.flags.no_user_site, sys.flags.safe_path]"
    asked = f"send(done={{'hash': hash('word'), 'flags': {flags}, 'path': sys.path}})"
    found = []
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
        found.append(run_job(program(asked), None, SMALL))
    assert found[0] == found[1] and found[0]["flags"] == [1, True]
    assert not [place for place in found[0]["path"] if place.startswith(str(tmp_path))]


def test_an_error_of_our_tree_keeps_its_kind_and_words(program):
    with pytest.raises(DataError, match=r"^too few\. Add some\.$") as raised:
        run_job(program(f"send(error={DataError('too few', advice='Add some.').to_json()})"), None, SMALL)
    assert raised.value.advice == "Add some."


@pytest.mark.parametrize("kind", ["SystemExit", "EdgeloopErrorX", "__name__"])
def test_an_error_of_no_known_kind_is_a_refused_model(program, kind):
    with pytest.raises(ModelError, match="words"):
        run_job(program(f"send(error={{'type': {kind!r}, 'found': 'words'}})"), None, SMALL)


def test_a_bug_in_the_child_is_a_bug_here_with_its_traceback(program):
    with pytest.raises(WorkerBug, match="line 7"):
        run_job(program("send(bug='line 7')"), None, SMALL)


HOG = "block = bytearray({size}); time.sleep(120)"


def test_reading_that_takes_too_much_memory_is_ended(program):
    with pytest.raises(ModelError, match=r"reading the model took [12]\d\d MB of memory, more than 100, "):
        run_job(program(HOG.format(size=200 * MB)), None, SMALL)


def test_memory_of_a_grandchild_counts(program):
    body = (
        f"import subprocess; subprocess.run([sys.executable, '-c', '''{'import time;' + HOG.format(size=200 * MB)}'''])"
    )
    with pytest.raises(ModelError, match="reading the model took"):
        run_job(program(body), None, SMALL)


def test_once_the_model_is_read_the_limit_of_work_holds(program):
    body = f"send(read=True); block = bytearray({200 * MB}); time.sleep(.3); send(done={{}})"
    assert run_job(program(body), None, SMALL) == {}
    with pytest.raises(ModelError, match=r"converting the model took [34]\d\d MB"):
        run_job(program("send(read=True); " + HOG.format(size=400 * MB)), None, SMALL)


def test_a_child_that_does_not_end_is_ended(program):
    with pytest.raises(ModelError, match="longer than the time limit"):
        run_job(program("time.sleep(60)"), None, Limits(read_s=0.5))


@pytest.mark.parametrize(("body", "how"), [("os.kill(os.getpid(), 11)", "SIGSEGV"), ("sys.exit(3)", "exit code 3")])
def test_a_crash_is_a_refused_model_with_how_it_ended(program, body, how):
    with pytest.raises(ModelError, match=how):
        run_job(program(f"print('last words', file=sys.stderr, flush=True); {body}"), None, SMALL)


def test_an_interrupt_leaves_no_child(program, tmp_path):
    body = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); send(say='up'); time.sleep(60)"

    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(program(body), None, SMALL, say=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIG_DFL)


def test_what_is_resident_is_measured():
    before = resident_bytes(os.getpid())
    block = bytearray(64 * MB)
    # every page of the block was written to; the rest of the process moves by a few MB at most
    assert 60 * MB < resident_bytes(os.getpid()) - before < 80 * MB
    del block


def test_a_limit_that_lets_nothing_run_is_refused():
    for limits in ({"read_bytes": 1000}, {"work_s": float("nan")}, {"read_s": float("inf")}, {"read_s": -1.0}):
        with pytest.raises(OptionsError, match="Memory must be 1 MB or more, and time above 0 s"):
            Limits(**limits)


def test_where_memory_cannot_be_watched_one_line_says_so_and_time_is_still_limited(program, monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "PROC", tmp_path)  # as on a system without procfs
    said = []
    assert run_job(program(f"block = bytearray({200 * MB}); send(done={{}})"), None, SMALL, say=said.append) == {}
    assert len(said) == 1 and "does not tell how much memory a process holds" in said[0] and "\n" not in said[0]
    with pytest.raises(ModelError, match=r"longer than the time limit of 0\.5 s"):
        run_job(program("time.sleep(60)"), None, Limits(read_s=0.5), say=said.append)


def test_where_memory_can_be_watched_nothing_is_said(program):
    said = []
    assert run_job(program("send(done={})"), None, SMALL, say=said.append) == {} and said == []


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("b'garbage'", "a line that is not JSON"),
        ("b'[' * 100_000", "a line that is not JSON"),
        (r"b'\xff\xfe'", "a line that is not JSON"),
        ("b'5'", "the JSON value 5"),
        ("""b'{"progress": 5}'""", "the progress 5"),
        ("""b'{"progress": ["a", "b", "c"]}'""", "the progress"),
        ("""b'{"done": [1]}'""", r"the result \[1\]"),
        ("b'x' * 50_000_000", "a line of more than 17 MB"),
    ],
)
def test_what_is_no_event_is_a_refused_model(program, sent, found):
    body = f"send(read=True); sys.stdout.buffer.write({sent} + b'\\n'); sys.stdout.flush(); time.sleep(60)"
    with pytest.raises(ModelError, match=f"^the process that was packing the model sent {found}.*expected an event"):
        run_job(program(body), None, SMALL, work="packing")


def test_a_crash_names_what_was_done_to_the_model(program):
    with pytest.raises(ModelError, match="that was reading the model crashed"):
        run_job(program("sys.exit(3)"), None, SMALL, work="packing")
    with pytest.raises(ModelError, match="that was packing the model crashed"):
        run_job(program("send(read=True); sys.exit(3)"), None, SMALL, work="packing")
