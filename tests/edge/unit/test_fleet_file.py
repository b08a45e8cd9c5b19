"""A fleet file names devices and groups of them."""

import pytest

from edgeloop.edge.deploy.waves import by_group, wave_sizes
from edgeloop.errors import DataError, OptionsError
from edgeloop.runtime.device import parse_device
from edgeloop.runtime.fleet_file import parse_devices

FILE = """
[devices]
left = "ssh://pi@left/~/edge/bin/python"
right = "ssh://right"
door = "ssh://door:2222"

[groups]
cameras = ["left", "right"]
canaries = ["right"]
"""


@pytest.fixture
def fleet(tmp_path):
    (tmp_path / "fleet.toml").write_text(FILE)
    return str(tmp_path / "fleet.toml")


def names(devices):
    return [device.ssh.host for device in devices]


def test_a_file_means_all_its_devices_and_a_name_behind_it_a_group_or_one(fleet):
    assert names(parse_devices([fleet])[0]) == ["left", "right", "door"]
    assert names(parse_devices([f"{fleet}#cameras"])[0]) == ["left", "right"]
    assert names(parse_devices([f"{fleet}#door"])[0]) == ["door"]
    assert parse_devices([f"{fleet}#left"])[0] == [parse_device("ssh://pi@left/~/edge/bin/python")]


def test_a_device_that_is_named_twice_is_taken_once(fleet):
    assert names(parse_devices(["ssh://right", f"{fleet}#cameras"])[0]) == ["right", "left"]


def test_waves_may_be_groups(fleet):
    text, devices = by_group("canaries,cameras,100%", *parse_devices([fleet]))
    assert (names(devices), wave_sizes(text, len(devices))) == (["right", "left", "door"], [1, 1, 1])
    text, devices = by_group("1,100%", *parse_devices([fleet]))
    assert (names(devices), wave_sizes(text, 3)) == (["left", "right", "door"], [1, 2])
    text, devices = by_group("cameras,100%", *parse_devices([f"{fleet}#canaries"]))  # of which one is deployed to
    assert (names(devices), wave_sizes(text, 1)) == (["right"], [1])
    with pytest.raises(OptionsError, match="'canarys' in --waves canarys,100% is not a count or percentage"):
        wave_sizes(by_group("canarys,100%", *parse_devices([fleet]))[0], 3)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("[devices", DataError, "is not valid TOML"),
        ("[groups]", DataError, "has no table of devices"),
        ("[devices]\n[slots]", DataError, "has the table 'slots'"),
        ("[devices]\na = 3", DataError, "device a is 3"),
        ('[devices]\na = "pi@left"', OptionsError, "device a: 'pi@left' is not a device"),
        ('[devices]\na = "ssh://a"\n[groups]\ng = ["b"]', DataError, "group g names 'b', which is none of its devices"),
        ('[devices]\na = "ssh://a"\n[groups]\ng = []', DataError, "group g is empty"),
        ('[devices]\na = "ssh://a"\n[groups]\na = ["a"]', DataError, "calls a device and a group 'a'"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path, text, error, words):
    (tmp_path / "fleet.toml").write_text(text)
    with pytest.raises(error, match=words) as refused:
        parse_devices([str(tmp_path / "fleet.toml")])
    assert "\n" not in str(refused.value)


def test_an_unknown_name_is_answered_with_the_nearest(fleet, tmp_path):
    with pytest.raises(OptionsError, match=r"no group and no device 'camera'\. Did you mean cameras\?"):
        parse_devices([f"{fleet}#camera"])
    with pytest.raises(DataError, match="cannot be read"):
        parse_devices([str(tmp_path / "none.toml")])
