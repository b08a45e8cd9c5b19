"""What a device's facts mean: by hand, for devices as they are in the field."""

import pytest

from edgeloop.edge.deploy.device_check import DeviceCheck, failure
from edgeloop.edge.deploy.device_findings import CheckState, Finding, clock_remarks, install_lines, judge
from edgeloop.edge.on_device.device_facts import FactsReply
from edgeloop.errors import DeviceError, TargetError
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN, UNSUPPORTED
from edgeloop.runtime.device import parse_device

NOW_S = 1_795_000_000.0
PI = {
    "python": "3.11.2",
    "executable": "/home/pi/edge/bin/python",
    "bits": 64,
    "machine": "aarch64",
    "runtimes": {"litert": "2.3.0"},
    "capabilities": {
        "board": "Raspberry Pi 4 Model B Rev 1.4",
        "os": "Debian GNU/Linux 12 (bookworm)",
        "kernel": "Linux 6.1.21",
        "libc": "glibc 2.36",
        "numpy": "2.3.1",
        "cpu_features": ["asimd"],
        "emulated": False,
        "delegates": {"edgetpu": UNSUPPORTED},
        "ram_total_bytes": 4_000_000_000,
        "ram_available_bytes": 3_000_000_000,
    },
    "conditions": {"temperature_c": 48.2, "throttled": False},
    "home": "/home/pi/.edgeloop",
    "writable": True,
    "disk_free_bytes": 20_000_000_000,
    "clock_s": NOW_S + 3,
    "camera_programs": ["rpicam-vid"],
    "videos": [],
    "verifies": True,
}


def facts(**changes) -> FactsReply:
    own = {name: value for name, value in changes.items() if name in PI}
    conditions = {name: value for name, value in changes.items() if name in PI["conditions"]}
    rest = {name: value for name, value in changes.items() if name not in own and name not in conditions}
    capabilities, conditions = {**PI["capabilities"], **rest}, {**PI["conditions"], **conditions}
    return FactsReply(**{**PI, "capabilities": capabilities, "conditions": conditions, **own})


def test_a_device_that_has_all_lacks_nothing():
    found = judge(facts(), NOW_S)
    assert {finding.state for finding in found} == {CheckState.OK}
    assert [finding.check for finding in found] == [
        "Python", "system", "NumPy", "runtimes", "memory", "disk", "clock", "temperature", "further",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "check", "state", "found", "advice"),
    [
        ({"numpy": UNSUPPORTED}, "NumPy", "lacks", "not installed", "/home/pi/edge/bin/python -m pip install numpy"),
        ({"runtimes": {"tflite-runtime": "2.14.0"}}, "NumPy", "lacks", "needs numpy<2", "pip install 'numpy<2'"),
        ({"runtimes": {"litert": "2.3.0", "tflite-runtime": "2.14.0"}}, "NumPy", "remark", "needs numpy<2", "numpy<2"),
        ({"runtimes": {}}, "runtimes", "lacks", "none", "~/edge/bin/pip install numpy ai-edge-litert"),
        ({"runtimes": {"tensorflow": "2.21"}}, "runtimes", "lacks", "none", "ai-edge-litert"),
        ({"ram_available_bytes": 40_000_000}, "memory", "lacks", "40 MB free of 4,000 MB", "a runtime alone takes 53"),
        ({"ram_available_bytes": UNKNOWN}, "memory", "remark", "unknown", ""),
        ({"writable": False}, "disk", "lacks", "cannot be written", "EDGELOOP_HOME"),
        ({"disk_free_bytes": 4_000_000}, "disk", "lacks", "4 MB free", "Free some space"),
        ({"disk_free_bytes": 90_000_000}, "disk", "remark", "90 MB free", ""),
        ({"clock_s": NOW_S - 790_000_000}, "clock", "lacks", "9144 days behind", "timedatectl"),  # 2001
        ({"clock_s": NOW_S + 300}, "clock", "remark", "5 minutes ahead of", "timedatectl"),
        ({"temperature_c": 84.0}, "temperature", "remark", "84 °C", "Cool it"),
        ({"throttled": True, "temperature_c": UNKNOWN}, "temperature", "remark", "slowed down", "Cool it"),
        ({"emulated": True}, "system", "remark", "its times mean nothing", ""),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_device_lacks_is_found_and_how_to_mend_it(changes, check, state, found, advice):
    (finding,) = [finding for finding in judge(facts(**changes), NOW_S) if finding.check == check]
    assert finding.state == state and found in finding.found and advice in finding.advice
    assert (finding.state is not CheckState.OK) >= bool(finding.advice)


def test_a_deploy_remarks_a_clock_that_is_more_than_a_day_wrong_and_no_other():
    (remark,) = clock_remarks(1_000_000_000.0, NOW_S)  # 2001-09-09 01:46:40 UTC; 795,000,000 s are 9201.4 days
    assert remark.startswith("the device's clock says 2001-09-09, 9201 days behind this machine's. Run there: sudo ")
    assert "12 days ahead of" in clock_remarks(NOW_S + 12 * 86_400, NOW_S)[0]
    assert [clock_remarks(s, NOW_S) for s in (None, NOW_S, NOW_S - 86_000, NOW_S + 86_000, float("nan"))] == [[]] * 5
    assert "clock is inf days ahead of" in clock_remarks(float("inf"), NOW_S)[0]  # whatever a device says


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bits": 32, "machine": "armv7l"}, "--system-site-packages ~/edge"),
        ({"bits": 32, "machine": "armv7l"}, "--no-deps tflite-runtime"),
        ({"bits": 32, "python": "3.13.1"}, "install Python 3.9 or 3.11, or a 64-bit system"),
        ({"libc": "glibc 2.24"}, "need glibc 2.27"),
        ({"libc": UNKNOWN}, "ai-edge-litert"),
    ],
)
def test_the_lines_to_install_a_runtime_fit_the_device(changes, words):
    assert words in install_lines(facts(**changes))


def test_a_device_without_heat_sensors_has_no_line_of_them():
    assert "temperature" not in [f.check for f in judge(facts(temperature_c=UNKNOWN, throttled=UNKNOWN), NOW_S)]


def test_what_lacks_is_exit_7_and_a_device_that_cannot_be_asked_exit_8():
    pi, other = parse_device("ssh://pi"), parse_device("ssh://other")
    whole = DeviceCheck(device=pi, findings=[Finding("disk", "much")])
    lacking = DeviceCheck(device=other, findings=[Finding("runtimes", "none", CheckState.LACKS, "Install one.")])
    silent = DeviceCheck(device=other, error=DeviceError("cannot reach other", advice="Check that it is running."))
    assert failure([whole]) is None
    error = failure([whole, lacking])
    assert isinstance(error, TargetError) and error.exit_code == 7
    assert str(error) == "ssh://other: 1 of 1 checks failed; the first: runtimes: none. Install one."
    assert failure([lacking, silent]).exit_code == 8
