"""What a run shows of itself while it goes on."""

import struct

import numpy as np

from edgeloop.federated.commands.run import result_of
from edgeloop.federated.rounds.buffered.options import BufferedOptions, RoundsMode
from edgeloop.federated.rounds.options import RoundsOptions
from edgeloop.federated.rounds.progress.event_file import EventFile
from edgeloop.federated.rounds.progress.progress import LOGS, PAGE, Progress, numbers_of
from edgeloop.federated.rounds.records import BUDGET_SPENT, ClientRecord, RefusedReply, RoundRecord, rounds_bytes
from edgeloop.tfrecord import HEAD, TAIL, length_of

WEIGHTS = {"w000": np.zeros(250_000, np.float32)}  # 1 MB


def record(number: int) -> RoundRecord:
    clients = (ClientRecord(0, 30, 0.5 / number, 2.0), ClientRecord(1, 10, 0.5 / number, 3.0, upload_bytes=500_000))
    refused = (RefusedReply("77", "norm", "it adds 9 to the weights <b>"),)
    return RoundRecord(number, f"rounds/round-{number}.npz", clients, refused, selected=4)


def show(out, count: int, rounds: int = 3, progress=None) -> Progress:
    progress = progress or Progress(out, rounds)
    (out / "rounds").mkdir(exist_ok=True)
    (out / "rounds" / f"round-{count}.npz").write_bytes(b"")
    (out / "rounds.json").write_bytes(rounds_bytes([record(n) for n in range(1, count + 1)]))
    progress.before(lambda *_: None)(record(count), WEIGHTS)
    return progress


def records_of(path) -> list[bytes]:
    data, found = path.read_bytes(), []
    while data:
        length = length_of(data[:HEAD])
        found.append(data[HEAD : HEAD + length])
        data = data[HEAD + length + TAIL :]
    return found


def test_the_page_says_who_took_part_what_travelled_and_who_was_refused_why(tmp_path):
    show(tmp_path, 1)
    page = (tmp_path / PAGE).read_text()
    assert "1 of 3 rounds" in page and "http-equiv=refresh" in page
    # 2 of 4 took part; 4 * 1 MB went out, 1 MB and 0.5 MB came back; the slowest took 3 s
    for cell in ("<td>0.5</td>", "<td>4</td>", "<td>1.5</td>", "<td>3</td>", "<td>1 norm</td>", "<td>77</td>"):
        assert cell in page
    assert "&lt;b&gt;" in page and "<b>" not in page


def test_a_buffered_round_has_updates_and_no_participation_for_they_are_not_of_the_devices_that_it_asked():
    mode = {mode: numbers_of(record(1), None, 10**6, mode) for mode in RoundsMode}
    assert mode[RoundsMode.SYNCHRONOUS]["participation"] == 0.5 and "updates" not in mode[RoundsMode.SYNCHRONOUS]
    assert mode[RoundsMode.BUFFERED]["updates"] == 2 and "participation" not in mode[RoundsMode.BUFFERED]


def test_the_table_of_buffered_rounds_counts_updates_alone(tmp_path):
    given = {"shards": (tmp_path / "a.npz", tmp_path / "b.npz"), "out": tmp_path}
    waiting, buffered = (
        result_of((record(1),), RoundsOptions(**given, buffered=mode), tmp_path).tables[0]
        for mode in (None, BufferedOptions(size=2))
    )
    assert (waiting.columns[2], waiting.rows[0][2]) == ("devices", "2 of 4")
    assert (buffered.columns[2], buffered.rows[0][2]) == ("updates", "2")


def test_the_page_of_a_finished_run_stays(tmp_path):
    progress = show(tmp_path, 1, rounds=2)
    show(tmp_path, 2, rounds=2, progress=progress)
    page = (tmp_path / PAGE).read_text()
    assert "2 of 2 rounds" in page and "http-equiv=refresh" not in page and "<polyline" in page


def test_the_page_of_a_run_that_spent_its_privacy_budget_stays_and_says_so(tmp_path):
    progress = show(tmp_path, 1)
    (tmp_path / "rounds.json").write_bytes(rounds_bytes([record(1)], BUDGET_SPENT))
    progress.end()
    page = (tmp_path / PAGE).read_text()
    assert "1 of 3 rounds. The run has ended: its privacy budget is spent." in page
    assert "http-equiv=refresh" not in page


def test_each_round_is_one_event_also_after_a_resume(tmp_path):
    progress = show(tmp_path, 1)
    show(tmp_path, 2, progress=progress)
    (first,) = (tmp_path / LOGS).iterdir()
    assert len(records_of(first)) == 3  # the version, two rounds
    show(tmp_path, 3)
    (again,) = (tmp_path / LOGS).iterdir()
    assert len(records_of(again)) == 4


def test_an_event_is_protobufs_encoding_of_step_and_values(tmp_path):
    file = EventFile(tmp_path, 5.0)
    file.add(300, 6.0, {"loss": 0.5})
    head, event = records_of(file.path)
    assert head == b"\x09" + struct.pack("<d", 5.0) + b"\x1a\x0dbrain.Event:2"
    value = b"\x0a\x04loss" + b"\x15" + struct.pack("<f", 0.5)
    # wall_time 1: double; step 2: 300 = 0xac 0x02; summary 5 with one value 1
    summary = b"\x0a" + bytes([len(value)]) + value
    assert event == b"\x09" + struct.pack("<d", 6.0) + b"\x10\xac\x02" + b"\x2a" + bytes([len(summary)]) + summary
