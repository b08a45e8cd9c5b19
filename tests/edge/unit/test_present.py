"""What is printed of devices: every error once, and as JSON in one form."""

from dataclasses import replace

import pytest

from edgeloop.edge.deploy import rollback
from edgeloop.edge.deploy.deploy_result import DeployResult, DeployStatus
from edgeloop.edge.deploy.device_status import StatusResult
from edgeloop.edge.deploy.enroll import EnrollResult
from edgeloop.edge.deploy.present import of_deploy, of_enroll, of_rollback, of_statuses
from edgeloop.edge.deploy.rollback import RollbackResult
from edgeloop.edge.on_device.releases.protocol import DeviceStatus, PullStatus, SlotStatus
from edgeloop.errors import DeviceError, OptionsError
from edgeloop.processes.messages import from_header, to_header
from edgeloop.runtime.device import parse_device

PI, CAMERA = parse_device("ssh://pi"), parse_device("ssh://camera")
ERROR = DeviceError("no answer in 5 s", advice="Check that it is running.", where="ssh://pi")
JSON = {
    "type": "DeviceError",
    "exit_code": 8,
    "found": "ssh://pi: no answer in 5 s.",
    "advice": "Check that it is running.",
}


def deployed(device, error=None):
    result = DeployStatus.FAILED if error else DeployStatus.COMMITTED
    reason = error.told_beside(device.name) if error else "the fastest of 3"
    return DeployResult(device=device, result=result, version=2, reason=reason, before=1, error=error)


def rolled_back(device, error=None):
    return RollbackResult(device=device, before=2, version=None if error else 1, error=error)


CASES = [(of_enroll, EnrollResult), (of_deploy, deployed), (of_rollback, rolled_back)]


@pytest.mark.parametrize(
    ("shown", "result", "name"),
    [(*case, name) for case, name in zip(CASES, ("ssh://pi", "ssh:pi", "ssh:pi"), strict=True)],
    ids=["enroll", "deploy", "rollback"],
)
def test_an_error_is_a_document_of_its_own_on_each_device(shown, result, name):
    made = shown([result(PI, ERROR), result(CAMERA)])
    assert [row["error"] for row in made.document["devices"]] == [JSON, None]
    assert made.error is ERROR
    assert f"{name}: no answer in 5 s. Check that it is running." in made.notes


@pytest.mark.parametrize(("shown", "result"), CASES, ids=["enroll", "deploy", "rollback"])
def test_the_error_of_the_only_device_is_printed_once(shown, result):
    made = shown([result(PI, ERROR)])
    assert made.error is ERROR and made.notes == []


@pytest.mark.parametrize(("shown", "result"), [(of_deploy, deployed), (of_rollback, rolled_back)])
def test_the_release_before_has_one_name(shown, result):
    (row,) = shown([result(PI)]).document["devices"]
    assert row["before"] in (1, 2) and "was" not in row


def test_a_device_that_does_not_answer_says_why():
    answers = StatusResult(device=parse_device("ssh://other"), status=DeviceStatus(False, {}, {}))
    silent = StatusResult(device=PI, error=ERROR)
    made = of_statuses([silent, answers], False)
    assert made.document["devices"][0] == {"device": "ssh://pi", "name": None, "reachable": False, "error": JSON}
    assert made.notes == ["ssh://pi: no answer in 5 s. Check that it is running."] and made.error is None
    assert of_statuses([silent, answers], True).error is ERROR  # --fail-if-unreachable


def test_a_device_is_called_as_its_fleet_file_does():
    named = replace(CAMERA, alias="door")
    for shown, result in CASES:
        made = shown([result(named, ERROR), result(PI)])
        assert [(row["device"], row["name"]) for row in made.document["devices"]] == [
            ("ssh://camera", "door"),
            ("ssh://pi", None),
        ]
        assert made.tables[0].rows[0][0] == "door" and made.notes[0].startswith("door: ")


def test_devices_of_which_none_answers_are_an_error():
    assert of_statuses([StatusResult(device=PI, error=ERROR)] * 2, False).error is ERROR
    assert of_statuses([], False).error is None


def test_a_device_without_a_release_is_told_to_deploy_first():
    with pytest.raises(
        OptionsError, match=r"ssh://pi: no bundle is deployed.*Run: edgeloop deploy BUNDLE --to ssh://pi"
    ):
        rollback._only(PI, DeviceStatus(False, {}, {}))


def test_the_last_poll_of_a_device_that_fetches_its_releases_is_told():
    pull = PullStatus("https://host/digits", "failed", "no answer", 12.3, 300.0, 3, pulled=True)
    slots = {
        "digits": SlotStatus("committed", 2, None, 2, pull=pull),
        "new": SlotStatus("empty", pull=PullStatus("/mnt/new")),
        "pushed": SlotStatus("committed", 1, None, 1),
    }
    sent = from_header(DeviceStatus, to_header(DeviceStatus(True, {}, slots)))  # as it comes from the device
    made = of_statuses([StatusResult(device=PI, status=sent)], False)
    assert [row[3] for row in made.tables[0].rows] == ["committed (fetched)", "empty", "committed"]
    assert made.notes == [
        "ssh://pi: digits follows https://host/digits; last poll 12 s ago, 3 polls in a row failed: failed: no answer",
        "ssh://pi: new follows /mnt/new; not polled yet",
    ]
    (document,) = made.document["devices"]
    assert document["slots"]["digits"]["pull"]["age_s"] == 12.3 and document["slots"]["pushed"]["pull"] is None
