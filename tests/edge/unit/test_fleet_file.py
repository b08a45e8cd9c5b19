"""A fleet file names devices and groups of them."""

import pytest

from edgeloop.edge.deploy.deploy_result import DeployOptions
from edgeloop.edge.deploy.device_options import deploy_options, options_by_device, refuse_other_slots
from edgeloop.edge.deploy.waves import by_group, wave_sizes
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints
from edgeloop.edge.run.location import run_location
from edgeloop.edge.run.options import RunOptions
from edgeloop.errors import DataError, DeviceError, OptionsError
from edgeloop.runtime.chosen_devices import choose_devices, parse_devices
from edgeloop.runtime.device import parse_device
from edgeloop.runtime.device_settings import DeviceSettings

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
    assert names(parse_devices([fleet])) == ["left", "right", "door"]
    assert names(parse_devices([f"{fleet}#cameras"])) == ["left", "right"]
    assert names(parse_devices([f"{fleet}#door"])) == ["door"]
    assert parse_devices([f"{fleet}#left"]) == [parse_device("ssh://pi@left/~/edge/bin/python")]


def test_a_device_that_is_named_twice_is_taken_once(fleet):
    assert names(parse_devices(["ssh://right", f"{fleet}#cameras"])) == ["right", "left"]


def grouped(waves, *texts):
    chosen = choose_devices(texts)
    return by_group(waves, chosen.devices, chosen.groups)


def test_waves_may_be_groups(fleet):
    text, devices = grouped("canaries,cameras,100%", fleet)
    assert (names(devices), wave_sizes(text, len(devices))) == (["right", "left", "door"], [1, 1, 1])
    text, devices = grouped("1,100%", fleet)
    assert (names(devices), wave_sizes(text, 3)) == (["left", "right", "door"], [1, 2])
    text, devices = grouped("cameras,100%", f"{fleet}#canaries")  # of which one is deployed to
    assert (names(devices), wave_sizes(text, 1)) == (["right"], [1])
    with pytest.raises(OptionsError, match="'canarys' in --waves canarys,100% is not a count or percentage"):
        wave_sizes(grouped("canarys,100%", fleet)[0], 3)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("[devices", DataError, "is not valid TOML"),
        ("[groups]", DataError, "has no table of devices"),
        ("[devices]\n[slots]", DataError, "has the table 'slots'"),
        ("[devices]\na = 3", DataError, "device a is 3"),
        (
            "[devices]\na = 'local:/none/python'",
            DeviceError,
            "fleet.toml: device a: local:/none/python: .* is not a program",
        ),
        ("[devices]\na = 'ssh://a'\n[groups]\n'50%' = ['a']", DataError, "group 50% has a name that --waves reads as"),
        ("[devices]\na = 'ssh://a'\n[groups]\n1 = ['a']", DataError, "group 1 has a name that --waves reads as"),
        ("[devices]\na = 'ssh://a'\n[groups]\n'a,b' = ['a']", DataError, "group a,b has a name that --waves reads as"),
        ("[device]\na = 3", DataError, r"has the table 'device'\. Did you mean devices\?"),
        ("devices = 3", DataError, "has no table of devices"),
        ("[devices.a]\nvariant = 'int8'", OptionsError, "fleet.toml: device a: address is missing"),
        (
            "[devices]\na = { address = 'ssh://a', max-ram = 3 }",
            OptionsError,
            r"fleet.toml: device a: max-ram is not known\. Did you mean max-ram-mb\?",
        ),
        (
            "[devices]\na = 'ssh://a'\n[groups]\ng = { devices = ['a'], varient = 'int8' }",
            OptionsError,
            r"fleet.toml: group g: varient is not known\. Did you mean variant\?",
        ),
        (
            "[defaults]\nthreads = 'two'\n[devices]",
            OptionsError,
            "defaults: threads is 'two'. It must be a whole number",
        ),
        (
            "[devices.a]\naddress = 'ssh://a'\nruntime = 'lite-rt'",
            OptionsError,
            r"device a: runtime 'lite-rt' is not known\. Did you mean litert\?",
        ),
        (
            "[devices]\na = 'ssh://a'\n[groups]\ng = { devices = ['a'], max_ram_mb = 3 }\n"
            "h = { devices = ['a'], max-ram-mb = 4 }",
            DataError,
            r"fleet.toml: device a: groups g and h give max-ram-mb as 3.0 and 4.0\. Give the device itself",
        ),
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


SETTINGS = """
[defaults]
slot = "digits"
threads = 2

[devices]
left = { address = "ssh://left", variant = "float16" }
right = "ssh://right"

[devices.door]
address = "ssh://door"
slot = "bells"
max-ram-mb = 80

[groups]
cameras = { devices = ["left", "right"], variant = "int8", runtime = "litert", p90-budget-ms = 20 }
outdoor = { devices = ["left", "door"], variant = "float32", threads = 4 }
"""


@pytest.fixture
def settings_of(tmp_path):
    """`settings_of(text)`: {name: what is said of it, without what is not said}."""
    (tmp_path / "fleet.toml").write_text(SETTINGS)

    def settings_of(name=""):
        entries = choose_devices([f"{tmp_path}/fleet.toml{name}"]).entries()
        return {device.alias: entry.settings.said() for device, entry in entries.items()}

    return settings_of


def test_a_device_goes_before_its_groups_and_these_before_the_defaults(settings_of):
    expected = {
        "left": {
            "slot": "digits", "variant": "float16", "runtime": "litert", "threads": 4, "p90_budget_ms": 20.0
        },
        "right": {"slot": "digits", "variant": "int8", "runtime": "litert", "threads": 2, "p90_budget_ms": 20.0},
        "door": {"slot": "bells", "variant": "float32", "threads": 4, "max_ram_mb": 80.0},
    }  # fmt: skip
    assert settings_of() == expected
    # what groups say holds however a device was named
    assert settings_of("#left") == {"left": expected["left"]}
    assert settings_of("#outdoor") == {name: expected[name] for name in ("left", "door")}


def test_the_command_line_goes_before_the_file(settings_of, tmp_path):
    chosen = choose_devices([f"{tmp_path}/fleet.toml", "ssh://other"])
    given = DeviceSettings(variant="dynamic", max_ram_mb=50.0)
    options = {device.label: own for device, own in options_by_device(chosen, given).items()}
    assert options["door"] == DeployOptions(
        slot="bells", threads=4, constraints=DeployConstraints(variant="dynamic", max_ram_bytes=50_000_000)
    )
    assert (options["left"].constraints.variant, options["left"].p90_budget_ms) == ("dynamic", 20.0)
    assert set(options) == {"left", "right", "door"}  # of ssh://other no file says anything


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("threads = 0", "--threads is 0. It must be 1 or more"),
        ("max-ram-mb = -1", "--max-ram-mb is -1. It must be a number above 0"),
        ("min-accuracy = 97", "--min-accuracy is 97. It must be from 0 to 1"),
        ("probation = 10\np90-budget-ms = 5", "--probation is 10, too few runs for a 90th percentile"),
    ],
)
def test_a_value_that_no_deploy_takes_is_refused_with_its_place(tmp_path, settings, words):
    (tmp_path / "fleet.toml").write_text(f'[devices.a]\naddress = "ssh://a"\n{settings}\n')
    with pytest.raises(OptionsError) as refused:
        options_by_device(choose_devices([f"{tmp_path}/fleet.toml"]), DeviceSettings())
    assert f"fleet.toml: device a: {words}" in str(refused.value)


def test_a_device_that_is_meant_for_another_bundle_is_refused(settings_of, tmp_path):
    options = options_by_device(choose_devices([f"{tmp_path}/fleet.toml"]), DeviceSettings())
    with pytest.raises(OptionsError, match="door has the slot 'bells' in its fleet file, and the bundle is 'digits'"):
        refuse_other_slots("digits", options)
    refuse_other_slots("digits", {parse_device("local"): deploy_options(DeviceSettings())})


def test_two_entries_of_one_machine_are_told_apart_by_group(tmp_path):
    text = "[devices]\nfaces = {address = 'ssh://a', slot = 'faces'}\nhands = {address = 'ssh://a', slot = 'hands'}"
    (tmp_path / "fleet.toml").write_text(text)
    both = choose_devices([f"{tmp_path}/fleet.toml"])
    assert len(both.devices) == 1  # to look at, it is one device
    with pytest.raises(OptionsError, match=r"device faces and .*device hands are the same machine, and say different"):
        options_by_device(both, DeviceSettings())
    one = choose_devices([f"{tmp_path}/fleet.toml#hands"])
    assert [entry.settings.slot for entry in one.entries().values()] == ["hands"]


def test_run_takes_one_device_of_a_file_and_its_slot(settings_of, tmp_path):
    place = run_location(f"{tmp_path}/fleet.toml#door", RunOptions())
    assert place.device == parse_device("ssh://door") and "--slot=bells" in place.arguments
    named = run_location(f"{tmp_path}/fleet.toml#door", RunOptions(slot="digits"))
    assert "--slot=digits" in named.arguments
    with pytest.raises(OptionsError, match=r"is 2 devices, and run takes one\. Name one of them, e\.g\. .*#left"):
        run_location(f"{tmp_path}/fleet.toml#cameras", RunOptions())


def test_records_call_a_device_as_its_file_does(settings_of, tmp_path):
    assert [d.label for d in parse_devices([f"{tmp_path}/fleet.toml", "ssh://right"])] == ["left", "right", "door"]
    assert parse_device("ssh://right").label == "ssh:right"


def test_a_folder_of_any_name_may_hold_the_file(tmp_path):
    folder = tmp_path / "site #2.toml"
    folder.mkdir()
    (folder / "fleet.toml").write_text(FILE)
    assert names(parse_devices([f"{folder}/fleet.toml#cameras"])) == ["left", "right"]
    assert len(parse_devices([f"{folder}/fleet.toml"])) == 3
