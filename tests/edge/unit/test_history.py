"""The history: rows of what was done, written whatever else happens; and rollouts that resume by it."""

import multiprocessing
import sqlite3
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from edgeloop.bundle import read_bundle
from edgeloop.edge.deploy import device_status, history_database, rollout
from edgeloop.edge.deploy.deploy_result import DeployOptions, DeployResult, DeployStatus
from edgeloop.edge.deploy.history import kept_history
from edgeloop.edge.deploy.history_database import history_file, open_database
from edgeloop.edge.deploy.history_reading import read_history, since_when
from edgeloop.edge.deploy.history_rows import HistoryAction, HistoryRow
from edgeloop.edge.deploy.known_devices import FLEET, known_devices
from edgeloop.edge.deploy.parallel import InterruptedRun
from edgeloop.edge.deploy.present_history import of_history
from edgeloop.edge.deploy.resume import demands
from edgeloop.edge.on_device.releases.protocol import DeviceStatus, SlotStatus
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints
from edgeloop.errors import DataError, DeviceError, OptionsError
from edgeloop.runtime.device import parse_device

INT8 = DeployOptions(constraints=DeployConstraints(variant="int8"))


@pytest.fixture(autouse=True)
def own_fleet(tmp_path, monkeypatch):
    monkeypatch.setenv(FLEET, str(tmp_path / "data" / "fleet.json"))


@pytest.fixture
def bundle(root):
    return read_bundle(root / "tests" / "golden" / "bundle-1")


def row(n=0, action=HistoryAction.DEPLOY, **more):
    values = {"at": f"2026-11-30T12:00:{n:02}.000Z", "device": "ssh://a", "name": "a", "result": "committed"}
    return HistoryRow(**{**values, "action": action, **more})


def written(*rows):
    with kept_history(None) as history:
        for one in rows:
            history.add([one])
    assert history.not_kept == []


# what is kept


def test_a_row_comes_back_as_it_was_written():
    whole = row(
        slot="digits", version=2, before=1, variant="int8", runtime="litert", manifest_sha256="ab", wave=3,
        options="{}", step="activate", duration_s=1.5, runs=64, p50_ms=0.5, p90_ms=0.75, sent_bytes=10, exit_code=6,
        reason="too slow",
    )  # fmt: skip
    written(whole)
    assert read_history().rows == [whole]
    assert history_file().name == "fleet.db"  # beside fleet.json


def test_the_same_answer_again_moves_the_time_of_the_last_one():
    status = HistoryAction.STATUS
    one = row(1, status, slot="digits", version=1, duration_s=0.5)
    written(one, replace(one, at="2026-11-30T13:00:00.000Z", duration_s=0.7))
    assert read_history().rows == [replace(one, until="2026-11-30T13:00:00.000Z")]
    # another release, another slot, and an answer after something else was done are rows of their own
    written(row(2, status, slot="digits", version=2), row(3, status, slot="bells", version=2))
    written(row(4, slot="digits", version=3), row(5, status, slot="digits", version=2))
    assert len(read_history().rows) == 5


def test_rows_are_found_by_device_and_by_time():
    written(row(1), row(2, device="ssh://b"), row(3, HistoryAction.STATUS, until="2026-12-30T00:00:00.000Z"))
    assert [r.at[17:19] for r in read_history([parse_device("ssh://a")]).rows] == ["01", "03"]
    assert [r.at[17:19] for r in read_history(since="2026-11-30T12:00:02.000Z").rows] == ["02", "03"]
    assert len(read_history(since="2026-12-24T00:00:00.000Z").rows) == 1  # it still gave this answer then
    assert read_history([parse_device("ssh://c")]).rows == []


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("30m", "2026-11-30T11:30:00.000Z"),
        ("12h", "2026-11-30T00:00:00.000Z"),
        ("7d", "2026-11-23T12:00:00.000Z"),
        ("2w", "2026-11-16T12:00:00.000Z"),
        ("2026-11-01", "2026-11-01T00:00:00.000Z"),
        ("2026-11-01T08:30+02:00", "2026-11-01T06:30:00.000Z"),
    ],
)
def test_since_is_an_age_or_a_date(text, when):
    assert since_when(text, datetime(2026, 11, 30, 12, tzinfo=UTC)) == when


@pytest.mark.parametrize("text", ["", "7", "-7d", "7 days", "yesterday", "999999w", "nan", "0001-01-01T00:00+14:00"])
def test_another_form_of_since_is_refused(text):
    with pytest.raises(OptionsError, match=r"--since is .* Write an age as 30m, 12h, 7d or 2w, or a date"):
        since_when(text, datetime(2026, 11, 30, 12, tzinfo=UTC))


def _writer(name, count):
    for n in range(count):
        with kept_history(None) as history:
            id = history.begin(row(n, device=name, result="started"))
            history.end(id, {"result": "committed"})
            assert history.not_kept == []


def test_several_commands_at_once_lose_no_row(tmp_path, monkeypatch):
    """Processes that make the database at the same moment, each opening it for every row."""
    monkeypatch.setattr(history_database, "BUSY_S", 120.0)  # a busy disk may keep one waiting for long
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_writer, args=(f"ssh://{n}", 10)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(300)
    assert [writer.exitcode for writer in writers] == [0] * 4
    rows = read_history().rows
    assert len(rows) == 40 and {r.result for r in rows} == {"committed"}


def test_threads_of_one_command_lose_no_row(monkeypatch):
    monkeypatch.setattr(history_database, "BUSY_S", 120.0)
    with kept_history(None) as history:
        threads = [threading.Thread(target=lambda n=n: history.add([row(n)])) for n in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
    assert sorted(r.at for r in read_history().rows) == sorted(row(n).at for n in range(32))


# what cannot be kept


def _damaged(file):
    file.parent.mkdir()
    file.write_bytes(b"no database" * 1000)


def _a_page_damaged(file):
    written(*(row(n, reason="x" * 4000) for n in range(9)))
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    file.write_bytes(data)


def _of_a_newer_edgeloop(file):
    written(row())
    db = sqlite3.connect(file)
    db.execute("PRAGMA user_version = 99")
    db.close()


def _under_a_file(file):
    file.parent.write_text("a file where the folder should be")


UNUSABLE = {
    _damaged: "file is not a database",
    _a_page_damaged: "malformed",
    _of_a_newer_edgeloop: "version 99 of the history, and this edgeloop writes 1",
    _under_a_file: "File exists",
}


@pytest.mark.parametrize(("make", "why"), UNUSABLE.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_history_that_cannot_be_written_is_one_line_and_the_rollout_goes_on(make, why, fleet, bundle):
    make(history_file())
    said = []
    results = rollout.deploy(bundle.path, fleet.devices(3), INT8, "1,100%", say=said.append)
    assert [result.result for result in results] == ["committed"] * 3
    (line,) = [line for line in said if line.startswith("No history was kept: ")]
    assert why in line and "\n" not in line


def test_a_history_that_another_program_holds_is_waited_for_once(fleet, bundle, monkeypatch):
    written(row())
    monkeypatch.setattr(history_database, "BUSY_S", 0.2)
    holder = sqlite3.connect(history_file())
    holder.execute("BEGIN IMMEDIATE")
    said = []
    results = rollout.deploy(bundle.path, fleet.devices(3), INT8, say=said.append)
    holder.close()
    assert [result.result for result in results] == ["committed"] * 3
    assert [line for line in said if "database is locked" in line] == said
    assert len(read_history().rows) == 1


@pytest.mark.parametrize("make", [_damaged, _a_page_damaged, _of_a_newer_edgeloop])
def test_a_history_that_cannot_be_read_is_refused_when_it_is_asked_for(make):
    make(history_file())
    with pytest.raises(DataError):
        read_history()


def test_no_history_is_an_empty_one():
    shown = of_history(read_history())
    assert (shown.document, shown.tables) == ({"history": [], "rollouts": []}, [])
    assert shown.notes == ["The history has no such row."] and not history_file().exists()


def test_a_history_whose_making_was_killed_is_an_empty_one_and_is_made_then():
    history_file().parent.mkdir()
    sqlite3.connect(history_file()).execute("PRAGMA journal_mode = WAL").connection.close()
    assert history_file().stat().st_size > 0 and read_history().rows == ()
    written(row())
    assert read_history().rows == [row()]


def test_a_database_of_an_earlier_version_is_brought_up_to_date(monkeypatch):
    written(row())
    monkeypatch.setattr(history_database, "SCHEMA", (*history_database.SCHEMA, "CREATE TABLE more (x INTEGER);"))
    open_database(history_file()).close()
    db = sqlite3.connect(history_file())
    assert db.execute("PRAGMA user_version").fetchone() == (2,)
    assert db.execute("SELECT count(*) FROM actions, more").fetchone() == (0,)
    db.close()


def test_a_list_of_devices_that_is_damaged_does_not_fail_the_rollout(fleet, bundle, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fleet.json").write_text("{")
    said = []
    (result,) = rollout.deploy(bundle.path, fleet.devices(1), INT8, say=said.append)
    assert result.result == "committed"
    (line,) = said
    assert line.startswith("The list of known devices was not kept: ") and "is not a list of devices" in line


# rollouts


class Killed(BaseException):
    """Where SIGKILL would end the program: nothing after it is done."""


class Fleet:
    """Devices that take a release at once.

    Attributes:
        asked: The names of devices in the order in which they were asked.
        sent: Those that a release was sent to.
        runs: What each one runs.
        bad: Errors by name, which a deploy ends with.
        kill: (name, when): there the program is killed, `when` being "asked" or "committed".
    """

    def __init__(self):
        self.asked, self.sent, self.runs, self.bad, self.kill = [], [], {}, {}, ("", "")

    def devices(self, count):
        return [parse_device(f"ssh://d{n}") for n in range(count)]

    def deploy_to(self, bundle, device, options, step, answers):
        name = device.ssh.host
        self.asked.append(name)
        result = DeployResult(
            device=device, result=DeployStatus.FAILED, version=bundle.manifest.version, reason="", variant="int8"
        )
        if self.kill == (name, "asked"):
            raise Killed
        if name in self.bad:
            return replace(result, error=self.bad[name], reason=self.bad[name].told_beside(device.name))
        answers(device)
        if self.runs.get(name) == bundle.manifest_sha256:
            return replace(result, result=DeployStatus.UNCHANGED)
        self.sent.append(name)
        self.runs[name] = bundle.manifest_sha256
        if self.kill == (name, "committed"):
            raise Killed
        return replace(result, result=DeployStatus.COMMITTED, p90_ms=1.0)


@pytest.fixture
def fleet(monkeypatch):
    fleet = Fleet()
    monkeypatch.setattr(rollout, "deploy_to", fleet.deploy_to)
    monkeypatch.setattr("edgeloop.edge.deploy.parallel.AT_ONCE", 1)  # so that a kill has one meaning
    return fleet


@pytest.fixture
def go(fleet, bundle):
    """`go(resume)`: one command of a rollout to six devices in three waves; its results by name and what it said."""

    def go(resume=False, options=INT8, waves="1,50%,100%", own=rollout.NONE, max_failed="0"):
        said = []
        results = rollout.deploy(
            bundle.path,
            fleet.devices(6),
            options,
            waves,
            own=own,
            resume=resume,
            max_failed=max_failed,
            say=said.append,
        )
        return {one.device.ssh.host: one.result.value for one in results}, said

    return go


ALL_SIX = [f"d{n}" for n in range(6)]


@pytest.mark.parametrize("when", ["asked", "committed"])
@pytest.mark.parametrize("name", ALL_SIX)
def test_killed_at_any_point_it_resumes_with_the_wave_it_had_reached(fleet, go, name, when):
    fleet.kill = (name, when)
    with pytest.raises(Killed):
        go()
    known = [row.name for row in read_history().rows if row.result == "committed"]
    fleet.kill, fleet.asked = ("", ""), []
    results, said = go(resume=True)
    assert sorted(fleet.sent) == ALL_SIX  # each once
    assert fleet.asked == [one for one in ALL_SIX if f"ssh:{one}" not in known]
    again = {name: "unchanged"} if when == "committed" else {}  # the device knows it, the history does not
    assert results == {one: "done before" if f"ssh:{one}" in known else again.get(one, "committed") for one in ALL_SIX}
    assert f"{len(known)} of 6 devices have release 1 of linear" in said[0]
    assert [rollout.result for rollout in read_history().rollouts] == ["done"]
    rows = read_history().rows
    assert {row.rollout for row in rows} == {1}
    assert sorted(row.name for row in rows if row.result == "committed") == [
        f"ssh:{one}" for one in ALL_SIX if one not in again
    ]


def test_a_wave_that_failed_is_resumed_with_the_same_sizes(fleet, go):
    fleet.bad["d2"] = DeviceError("no route")
    assert go()[0] == {
        "d0": "committed", "d1": "committed", "d2": "failed", **dict.fromkeys(("d3", "d4", "d5"), "not started")
    }  # fmt: skip
    fleet.asked = []
    results, said = go(resume=True)  # still broken: no further wave begins
    assert fleet.asked == ["d2"] and results["d3"] == "not started"
    assert said[1:] == ["Wave 2 of 3: 1 device."]
    fleet.bad, fleet.asked = {}, []
    results, said = go(resume=True)
    assert fleet.asked == ["d2", "d3", "d4", "d5"] and fleet.sent == ALL_SIX
    assert said[1:] == ["Wave 2 of 3: 1 device.", "Wave 3 of 3: 3 devices."]  # half of six, as the first time
    go(resume=True)  # once it is done there is nothing to resume, and all are asked
    assert fleet.asked[4:] == ALL_SIX


def test_the_failures_that_are_allowed_are_those_of_the_whole_rollout(fleet, go):
    fleet.bad = {name: DeviceError("no route") for name in ("d0", "d2")}
    results, _ = go(max_failed="1")
    assert [results[name] for name in ("d0", "d2", "d3")] == ["failed", "failed", "not started"]  # two of six by then
    fleet.asked = []
    assert go(resume=True, max_failed="1")[0]["d3"] == "not started"  # the same two, tried again
    assert fleet.asked == ["d0", "d2"]
    results, _ = go(resume=True, max_failed="34%")  # 2.04 of 6
    assert [name for name, result in results.items() if result == "failed"] == ["d0", "d2"]
    assert results["d5"] == "committed" and read_history().rollouts[-1].result == "failed"
    fleet.bad, fleet.asked = {}, []
    assert set(go(resume=True)[0].values()) == {"committed", "done before"} and fleet.asked == ["d0", "d2"]


def test_without_resume_every_device_is_asked_and_told_of_it(fleet, go):
    fleet.bad["d2"] = DeviceError("no route")
    go()
    fleet.bad, fleet.asked = {}, []
    results, said = go()
    assert fleet.asked == ALL_SIX and results["d0"] == "unchanged"
    assert "2 of 6 devices have this release. With --resume they are not asked again." in said[0]


def test_resume_without_an_early_end_says_so(fleet, go):
    results, said = go(resume=True)
    assert set(results.values()) == {"committed"}
    assert said[0] == "The history has no rollout of release 1 of linear that ended early: every device is asked."


@pytest.mark.parametrize(
    "since",
    [
        {"action": HistoryAction.ROLLBACK, "result": "rolled back", "version": 0},
        {"action": HistoryAction.STATUS, "result": "committed", "version": 9, "manifest_sha256": "ab"},
        {"action": HistoryAction.DEPLOY, "result": "started"},
        {"action": HistoryAction.DEPLOY, "result": "failed"},
    ],
)
def test_a_device_that_changed_since_is_asked_again(fleet, go, since):
    fleet.bad["d2"] = DeviceError("no route")
    go()
    written(row(59, device="ssh://d1", name="ssh:d1", slot="linear", **since))
    fleet.bad, fleet.asked = {}, []
    go(resume=True)
    assert fleet.asked == ["d1", "d2", "d3", "d4", "d5"]


def test_a_device_that_was_wiped_since_is_asked_again(fleet, go, monkeypatch):
    """It answers, as before its first deploy, that it holds no release."""
    answer = device_status.StatusResult(device=parse_device("ssh://d1"), status=DeviceStatus(False, {}, {}))
    monkeypatch.setattr(device_status, "_ask", lambda *_: answer)
    device_status.read_statuses([answer.device])
    fleet.bad["d2"] = DeviceError("no route")
    go()
    device_status.read_statuses([answer.device])
    fleet.bad, fleet.asked = {}, []
    go(resume=True)
    assert fleet.asked == ["d1", "d2", "d3", "d4", "d5"]


def test_a_wiped_device_that_holds_another_release_now_has_an_empty_row_of_the_one_before(fleet, go, monkeypatch):
    fleet.bad["d2"] = DeviceError("no route")
    go()
    other = DeviceStatus(False, {}, {"bells": SlotStatus("committed", current=3)})
    answer = device_status.StatusResult(device=parse_device("ssh://d1"), status=other)
    monkeypatch.setattr(device_status, "_ask", lambda *_: answer)
    for _ in range(2):  # the second time it says the same, which is no news
        device_status.read_statuses([answer.device])
    told = [r for r in read_history([answer.device]).rows if r.action is HistoryAction.STATUS]
    assert [(r.slot, r.result, r.version) for r in told] == [("bells", "committed", 3), ("linear", "empty", None)]
    assert all(r.until for r in told)
    fleet.bad, fleet.asked = {}, []
    go(resume=True)
    assert fleet.asked == ["d1", "d2", "d3", "d4", "d5"]


def test_a_device_that_confirmed_its_release_since_is_not(fleet, go, bundle):
    fleet.bad["d2"] = DeviceError("no route")
    go()
    confirmed = {"slot": "linear", "version": 1, "manifest_sha256": bundle.manifest_sha256}
    written(row(59, HistoryAction.STATUS, device="ssh://d1", name="ssh:d1", **confirmed))
    fleet.bad, fleet.asked = {}, []
    go(resume=True)
    assert fleet.asked == ["d2", "d3", "d4", "d5"]


def test_other_demands_than_before_ask_a_device_again(fleet, go):
    """What a rollout demands holds for all of it: a device that met other demands is asked by the new ones."""
    fleet.bad["d2"] = DeviceError("no route")
    go()
    fleet.bad, fleet.asked = {}, []
    one = parse_device("ssh://d1")
    go(resume=True, own={one: replace(INT8, p90_budget_ms=5.0)})
    assert fleet.asked == ["d1", "d2", "d3", "d4", "d5"]
    assert demands(replace(INT8, timeout_s=9, take_over=True)) == demands(INT8)


def test_an_interrupt_between_two_waves_has_an_outcome_for_every_device_and_is_resumed(fleet, bundle):
    def progress(what, done, total):
        if done == total and "d1" in what:
            raise KeyboardInterrupt

    devices = fleet.devices(3)
    with pytest.raises(InterruptedRun) as interrupted:
        rollout.deploy(bundle.path, devices, INT8, "1,2,3", progress)
    assert [one.result for one in interrupted.value.results] == ["committed", "committed", "not started"]
    assert [one.result for one in read_history().rollouts] == ["interrupted"] and len(known_devices()) == 2
    results = rollout.deploy(bundle.path, devices, INT8, "1,2,3", resume=True, say=lambda line: None)
    assert [one.result for one in results] == ["done before", "done before", "committed"]


def test_the_history_says_what_ran_where_when_and_what_ended_early(fleet, go):
    fleet.bad["d2"] = DeviceError("no answer in 5 s", advice="Try again.", where="ssh://d2")
    go()
    shown = of_history(read_history())
    (table,) = shown.tables
    found = [dict(zip(table.columns, cells, strict=True)) for cells in table.rows]
    assert [(r["device"], r["result"], r["release"], r["variant"]) for r in found] == [
        ("ssh:d0", "committed", "1", "int8"),
        ("ssh:d1", "committed", "1", "int8"),
        ("ssh:d2", "failed", "1", "int8"),
    ]
    reason, note = shown.notes
    assert reason.endswith("ssh:d2: no answer in 5 s. Try again.")
    assert "failed in wave 2: 2 of 6 devices have the release. Repeat its deploy with --resume" in note
    document = shown.document["history"][2]
    assert (document["exit_code"], document["wave"], document["action"]) == (8, 2, "deploy")
    fleet.bad = {}
    go(resume=True)
    assert of_history(read_history()).notes == [reason]
