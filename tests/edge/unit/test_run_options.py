"""What `edgeloop run` is asked, and the unit file it prints."""

import re

import pytest

from edgeloop.edge.commands import run as command
from edgeloop.edge.on_device.pull.pull_options import PullOptions, read_arguments
from edgeloop.edge.on_device.pull.release_source import SourceAddress
from edgeloop.edge.on_device.releases.protocol import Probation
from edgeloop.edge.on_device.serving.serve import options
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints
from edgeloop.edge.run.location import run_location
from edgeloop.edge.run.options import RunOptions
from edgeloop.edge.run.run import ask, run
from edgeloop.edge.run.systemd import unit, unit_name
from edgeloop.errors import DeviceError, OptionsError

WHERE = {
    "python": "/usr/bin/python3",
    "program": "/home/pi/.edgeloop/agent-0.pyz",
    "home": "/home/pi/.edgeloop",
    "user": "pi",
    "slot": "tiny",
    "bundle": None,
    "ram_bytes": None,
}


def pull(text="https://host/models/digits#canary", **more):
    return PullOptions(address=SourceAddress(text), **more)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"http": 1, "input": "-"}, "exclude each other"),
        ({"http": 65536}, "--http is 65536"),
        ({"host": "0.0.0.0"}, "--host needs --http PORT"),
        ({"http": 1, "count": 1}, "not to a server"),
        ({"threads": 0}, "--threads is 0"),
        ({"count": 0}, "--count is 0"),
        ({"timeout_s": 0}, "--timeout-s is 0"),
        ({"watch": True}, "--input DIR"),
        ({"watch": True, "input": "camera"}, "--input DIR"),
        ({"slot": "other", "pull": pull()}, "--slot is 'other', and --follow names the model 'digits'"),
        ({"pixels": (0, 1)}, "applies to images"),
        ({"pixels": (1, 1), "input": "camera"}, "LOW must be below HIGH"),
    ],
    ids=str,
)
def test_contradictions_are_refused_when_built(asked, words):
    with pytest.raises(OptionsError, match=words):
        RunOptions(**asked)


@pytest.mark.parametrize("given", [{"poll_s": 300.0}, {"probation": 64}], ids=str)
def test_an_option_of_fetched_releases_is_refused_without_follow_also_at_its_default(given):
    with pytest.raises(OptionsError, match="applies to fetched releases"):
        command.run(None, **given)


def test_the_devices_program_reads_what_was_asked():
    asked = RunOptions(
        slot="a slot", input="/a dir", variant="int8", runtime="litert", threads=2, count=3, watch=True, pixels=(-1, 1)
    )
    read = options(asked.arguments())
    assert (read.slot, read.input, read.variant, read.runtime) == ("a slot", "/a dir", "int8", "litert")
    assert (read.threads, read.count, read.watch, read.pixels, read.timeout) == (2, 3, True, (-1.0, 1.0), 60.0)
    assert options(RunOptions(slot="--http=1").arguments()).slot == "--http=1"  # a name is never an option
    server = options(RunOptions(http=0, host="::1").arguments())
    assert (server.http, server.host, server.input) == (0, "::1", "-")


def test_the_devices_program_reads_where_to_fetch_releases_from():
    constraints = DeployConstraints("int8", "litert", 0.97, None, 50_000_000)
    probation = Probation(70, 4.5)
    for asked in (
        pull(),
        pull(poll_s=30.0, threads=2, root_certificate="/ca.pem", constraints=constraints, probation=probation),
    ):
        constraints = asked.constraints
        run = RunOptions(
            http=1, variant=constraints.variant or "", runtime=constraints.runtime or "", threads=asked.threads or None,
            pull=asked,
        )  # fmt: skip
        assert read_arguments(options(run.arguments())) == asked
    assert read_arguments(options(RunOptions(http=1).arguments())) is None
    with pytest.raises(OptionsError, match="--poll-s is 0"):
        pull(poll_s=0)
    with pytest.raises(OptionsError, match="--root-certificate applies to an https URL"):
        pull("http://host/digits", root_certificate="/ca.pem")


def test_a_release_may_pass_where_other_things_are_demanded():
    assert pull().demands == pull(poll_s=1.0).demands == pull("/mnt/digits").demands
    others = pull(threads=2), pull(constraints=DeployConstraints("int8")), pull(probation=Probation(3))
    assert len({pull().demands, *(other.demands for other in others)}) == 4


def test_what_is_read_on_a_device_behind_ssh_is_named_from_its_root():
    for asked in (pull("models/digits"), pull(root_certificate="ca.pem")):
        with pytest.raises(OptionsError, match="with a leading slash"):
            run_location("ssh://pi@10.0.0.9", RunOptions(http=1, pull=asked))
    here = run_location("local", RunOptions(http=1, pull=pull("models/digits#canary"))).arguments
    (word,) = [word for word in here if word.startswith("--follow")]
    assert re.fullmatch(r"--follow=/.*/models/digits#canary", word)
    url = run_location("ssh://pi@10.0.0.9", RunOptions(http=1, pull=pull())).arguments
    assert "--follow=https://host/models/digits#canary" in url


def test_a_unit_that_fetches_releases_reaches_the_network_and_has_room_for_a_trial():
    where = {**WHERE, "ram_bytes": 100 << 20}
    text = unit(where, RunOptions(http=1, pull=pull()))
    assert "--follow=https://host/models/digits#canary" in text
    assert "After=network-online.target" in text and "IPAddressDeny" not in text
    # the old model, the new one and the one on trial, and two programs of 128 MiB
    assert f"MemoryMax={556 << 20}" in text
    folder = unit(where, RunOptions(http=1, pull=pull("/mnt/digits")))
    assert "network-online" not in folder and "IPAddressDeny=any" in folder


def test_an_input_is_endless_unless_it_is_known_to_end():
    assert [RunOptions(**asked).endless for asked in (
        {}, {"input": "-"}, {"input": "d"}, {"input": "camera"}, {"input": "camera:1", "count": 2},
        {"input": "d", "watch": True}, {"http": 1},
    )] == [False, False, False, True, False, True, True]  # fmt: skip


def test_a_folder_behind_ssh_is_named_from_its_root():
    with pytest.raises(OptionsError, match="with a leading slash"):
        run_location("ssh://pi@10.0.0.9", RunOptions(input="frames"))
    assert "--input=/frames" in run_location("ssh://pi@10.0.0.9", RunOptions(input="/frames")).arguments
    (word,) = [w for w in run_location("local", RunOptions(input="frames")).arguments if w.startswith("--input")]
    assert re.fullmatch(r"--input=/.*/frames", word)


def test_a_unit_says_when_it_is_ready_is_watched_and_is_confined():
    text = unit(WHERE, RunOptions(slot="tiny", http=8501))
    lines = text.splitlines()
    program = "/home/pi/.edgeloop/agent-0.pyz edge.on_device.serving.serve"
    command = f"/usr/bin/python3 -I {program} --slot=tiny --http=8501 --timeout=60"
    assert f"ExecStart={command}" in lines
    for line in (
        "Type=notify", "User=pi", "Restart=on-failure", "WatchdogSec=60", "KillMode=mixed", "NoNewPrivileges=yes",
        "ProtectSystem=strict", "PrivateTmp=yes", "ReadWritePaths=/home/pi/.edgeloop", "PrivateDevices=yes",
        "IPAddressDeny=any", "IPAddressAllow=localhost", "Environment=EDGELOOP_HOME=/home/pi/.edgeloop",
    ):  # fmt: skip
        assert line in lines, line
    assert not re.search("MemoryMax", text)
    assert [line for line in lines if line.startswith("[")] == ["[Unit]", "[Service]", "[Install]"]
    assert unit_name(WHERE) == "edgeloop-tiny.service"


def test_memory_camera_and_network_follow_from_what_is_asked():
    text = unit({**WHERE, "ram_bytes": 100 << 20}, RunOptions(input="camera"))
    # twice 100 MiB, for while one release takes over from another, and 128 MiB of its own
    assert f"MemoryMax={328 << 20}" in text
    assert "SupplementaryGroups=video" in text and "PrivateDevices" not in text
    assert "IPAddressDeny" not in unit(WHERE, RunOptions(http=1, host="10.0.0.9"))


def test_nothing_in_a_path_is_expanded_or_ends_a_word():
    home = '/home/p "i"/$HOME %h\\'
    text = unit({**WHERE, "home": home, "program": f"{home}/a.pyz"}, RunOptions(http=1))
    quoted = '/home/p \\"i\\"/$HOME %%h\\\\'
    assert f'Environment="EDGELOOP_HOME={quoted}"' in text  # systemd expands no variables here
    assert f'-I "{quoted.replace("$", "$$")}/a.pyz" edge.on_device.serving.serve' in text
    assert 'WorkingDirectory=/home/p "i"/$HOME %%h\\' in text
    for field in ("slot", "user", "home", "python"):
        with pytest.raises(OptionsError, match="a unit file cannot hold"):
            unit({**WHERE, field: "a\nExecStartPre=/bin/evil"}, RunOptions(http=1))


def test_a_service_has_no_standard_input():
    with pytest.raises(OptionsError, match="a service has no standard input"):
        unit(WHERE, RunOptions())


def test_a_units_name_has_no_odd_characters():
    assert unit_name({**WHERE, "slot": "é/ x"}) == "edgeloop-___x.service"
    assert unit_name({**WHERE, "slot": None, "bundle": "/b/tiny"}) == "edgeloop-tiny.service"


def test_a_program_that_is_no_python_is_not_taken_for_one_without_answers(tmp_path):
    with pytest.raises(DeviceError, match=r"the program there ended well without a word"):
        list(run("local:/usr/bin/true"))
    with pytest.raises(DeviceError, match=r"the program there ended well without an answer"):
        ask("local:/usr/bin/true", RunOptions(), "--service-location")
    for printed in ("{}", "hello", "[1]", '{"failed": {}}'):
        other = tmp_path / "python"
        other.write_text(f"#!/bin/sh\necho '{printed}'")
        other.chmod(0o755)
        with pytest.raises(DeviceError, match=r"the program there answered"):
            list(run(f"local:{other}"))


@pytest.mark.parametrize(("end", "how"), [("kill -SEGV $$", "signal SIGSEGV"), ("exit 3", "exit code 3")])
def test_how_the_program_ended_is_said_with_its_last_words(tmp_path, end, how):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{{\"started\": 1}}'\necho out of luck. >&2\n{end}\n")
    python.chmod(0o755)
    with pytest.raises(DeviceError, match=rf"program ended \({how}; its last words: out of luck\)") as said:
        list(run(f"local:{python}"))
    assert said.value.advice
