"""The journal of a search: nothing measured is lost, nothing measured is measured again."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from edgeloop.convert.search.journal import Journal, search_key
from edgeloop.errors import DataError, WriteError

RECORD = {"bytes": 3, "measured": {"accuracy": 0.5, "snr_db": None}}


def test_a_record_is_read_again_by_its_id_and_key(tmp_path):
    Journal(tmp_path / "j", "key").add("int8", RECORD)
    assert Journal(tmp_path / "j", "key").get("int8") == RECORD
    assert Journal(tmp_path / "j", "another key").get("int8") is None


def test_records_of_another_key_stay_in_the_file(tmp_path):
    Journal(tmp_path / "j", "one").add("int8", RECORD)
    Journal(tmp_path / "j", "two").add("int8", {"bytes": 4})
    assert Journal(tmp_path / "j", "one").get("int8") == RECORD


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_last_line_is_cut_off_and_the_next_record_stands_on_its_own(tmp_path, cut):
    path = tmp_path / "j"
    for id in ("a", "b"):
        Journal(path, "key").add(id, RECORD)
    path.write_bytes(path.read_bytes()[:-cut])
    journal = Journal(path, "key")
    assert (journal.get("a"), journal.get("b")) == (RECORD, None)
    journal.add("c", RECORD)
    again = Journal(path, "key")
    assert [again.get(id) for id in "abc"] == [RECORD, None, RECORD]


def test_a_file_that_is_no_journal_is_left_alone(tmp_path):
    path = tmp_path / "j"
    path.write_text("dear diary\n{}\n")
    with pytest.raises(DataError, match=r"line 1 of .* Delete the file"):
        Journal(path, "key")
    assert path.read_text() == "dear diary\n{}\n"


def test_a_journal_that_cannot_be_written_is_a_write_error(tmp_path):
    with pytest.raises(WriteError, match="cannot write the search journal"):
        Journal(tmp_path / "none" / "j", "key").add("a", RECORD)


def test_the_key_changes_with_everything_the_numbers_depend_on():
    x = np.arange(6, dtype=np.float32)
    ranges = {"t": {"min": np.float32([0]), "max": np.float32([1])}}
    wider = {"t": {"min": np.float32([0]), "max": np.float32([2])}}
    keys = [
        search_key(b"model", ranges, {"x": x}, {"max_drop_pp": 0.5}),
        search_key(b"other", ranges, {"x": x}, {"max_drop_pp": 0.5}),
        search_key(b"model", wider, {"x": x}, {"max_drop_pp": 0.5}),
        search_key(b"model", ranges, {"x": x + 1}, {"max_drop_pp": 0.5}),
        search_key(b"model", ranges, {"x": x.reshape(2, 3)}, {"max_drop_pp": 0.5}),
        search_key(b"model", ranges, {"x": x}, {"max_drop_pp": 1.0}),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == search_key(b"model", ranges, {"x": x.copy()}, {"max_drop_pp": 0.5})


PROGRAM = """
import json, sys, time
from pathlib import Path
from edgeloop.bundle import Scheme
from edgeloop.convert.search.candidate import MixMeasurement
from edgeloop.convert.search.journal import Journal
from edgeloop.convert.search.metric import Metric, SourceScore
from edgeloop.convert.search.search import Layer, SearchOptions, search

folder, pause = Path(sys.argv[1]), float(sys.argv[2])
layers = [Layer(tensor=f"t{k}", operators=(f"t{k}",), inputs=(), damage=1 / (k + 1), bytes=5000) for k in range(12)]

def quantize(scheme, keep):
    kept = sum(s in (Scheme.FLOAT16, Scheme.FLOAT32) for s in keep.values())
    bad = 0 if scheme in (Scheme.FLOAT16, Scheme.FLOAT32) else len({"t1", "t4", "t7"} - set(keep))
    size = 4000 + 500 * kept if keep or bad else 9000
    return json.dumps([bad, scheme.value, dict(keep)]).encode().ljust(size)

def measure(data, scheme):
    with (folder / "measured").open("ab") as file:
        file.write(b"x")
    time.sleep(pause)
    accuracy = 0.9 - 0.1 * json.loads(data)[0]
    return MixMeasurement(value=accuracy, latency_ms=1.0, latency_ratio=1.0, snr_db=9.0, passed=True)

source = SourceScore(metric=Metric.ACCURACY, value=0.9)
found = search(layers, quantize, measure, source, SearchOptions(max_drop_pp=0.5), Journal(folder / "j", "key"))
print(json.dumps([sorted(found.best.keep), len(found.tried), found.resumed]))
"""


def start(folder, pause):
    command = [sys.executable, "-c", PROGRAM, str(folder), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_search_goes_on_and_measures_nothing_twice(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    with start(whole, 0) as child:
        best, tried, resumed = json.loads(child.communicate(timeout=60)[0])
    assert best == ["t1", "t4", "t7"] and resumed == 0 and tried > 8
    with start(killed, 0.1) as child:
        deadline = time.monotonic() + 60
        while not ((killed / "j").exists() and (killed / "j").read_bytes().count(b"\n") >= 7):
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
    lines = (killed / "j").read_bytes().count(b"\n")
    with start(killed, 0) as child:
        assert json.loads(child.communicate(timeout=60)[0]) == [best, tried, lines]
    # at most the one that was being measured when the process died is measured again
    assert tried <= len((killed / "measured").read_bytes()) <= tried + 1
