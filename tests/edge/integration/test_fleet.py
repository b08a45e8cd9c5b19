"""A fleet file and real devices, each with an sshd and a folder of its own: what the file says of each one is done
there, what happened is kept, and a rollout whose program was killed resumes."""

import json
import os
import signal
import subprocess
import sys

import pytest
from devices import eventually
from releases import NAME, release, runs_on, version_on
from sweeps import swept

from edgeloop.cli import run as edgeloop
from edgeloop.edge.deploy.history_reading import read_history
from edgeloop.edge.deploy.known_devices import FLEET

NAMES = ("canary", "left", "right", "door", "roof")


@pytest.fixture(autouse=True)
def _own_fleet(tmp_path, monkeypatch):
    monkeypatch.setenv(FLEET, str(tmp_path / "known" / "fleet.json"))


@pytest.fixture
def ask(capfd):
    """`ask(ARGUMENT...)`: the exit code of edgeloop, the JSON document it printed, and what it said beside it."""

    def ask(*arguments):
        code = edgeloop([*map(str, arguments), "--json"])
        printed = capfd.readouterr()
        return code, json.loads(printed.out), printed.err

    return ask


@pytest.fixture
def new_fleet(new_ssh_device, tmp_path):
    """`new_fleet(names)`: the devices by name, and their file with two groups."""

    def new(names):
        there = {name: new_ssh_device(name) for name in names}
        lines = [f'{name} = "{one.device.name}"' for name, one in there.items()]
        lines[-1] = f'{names[-1]} = {{ address = "{there[names[-1]].device.name}", variant = "float16" }}'
        text = "\n".join(["[defaults]", f'slot = "{NAME}"', 'runtime = "litert"', "[devices]", *lines, "[groups]"])
        text += f'\ncanaries = ["{names[0]}"]\ncameras = {{ devices = {json.dumps(names)}, variant = "int8" }}\n'
        (tmp_path / "fleet.toml").write_text(text)
        return there, tmp_path / "fleet.toml"

    return new


def shown(document, *keys):
    return [tuple(row[key] for key in keys) for row in document["devices"]]


def test_a_file_says_what_every_verb_does_on_each_device_and_the_history_keeps_it(new_fleet, tmp_path, ask):
    there, file = new_fleet(NAMES[:3])
    code, document, said = ask("deploy", release(tmp_path, 1), "--to", file, "--waves", "canaries,100%")
    assert code == 0 and shown(document, "result", "wave", "variant") == [
        ("committed", 1, "int8"), ("committed", 2, "int8"), ("committed", 2, "float16")
    ]  # fmt: skip
    assert [v.id for v in runs_on(there["right"].home).variants] == ["float16"]
    assert said.index("Wave 1 of 2: 1 device.") < said.index("deploy to canary: done") < said.index("Wave 2 of 2: 2 ")

    # the command line goes before the file, on the device that was named
    code, document, _ = ask("deploy", release(tmp_path, 2), "--to", f"{file}#canaries", "--variant", "dynamic")
    assert (code, shown(document, "before", "version", "variant")) == (0, [(1, 2, "dynamic")])
    code, document, _ = ask("rollback", f"{file}#canary")
    assert (code, shown(document, "slot", "version")) == (0, [(NAME, 1)])
    code, document, _ = ask("devices", file)
    assert (code, [row["slots"][NAME]["current"] for row in document["devices"]]) == (0, [1, 1, 1])
    os.kill(there["left"].sshd.pid, signal.SIGKILL)
    assert ask("devices", f"{file}#left")[0] == 8

    code, document, _ = ask("devices", "--history", f"{file}#canary")
    rows = document["history"]
    assert [(row["action"], row["result"], row["before"], row["version"], row["variant"]) for row in rows] == [
        ("deploy", "committed", None, 1, "int8"),
        ("deploy", "committed", 1, 2, "dynamic"),
        ("rollback", "rolled back", 2, 1, "int8"),
        ("status", "committed", None, 1, "int8"),
    ]
    assert {row["name"] for row in rows} == {"canary"} and {row["slot"] for row in rows} == {NAME}
    assert all(row["duration_s"] > 0 for row in rows)
    assert rows[0]["runs"] == 64 and rows[0]["p90_ms"] >= rows[0]["p50_ms"] > 0
    code, document, _ = ask("devices", "--history", f"{file}#left", "--since", "1h")
    last = document["history"][-1]
    assert (last["result"], last["exit_code"]) == ("unreachable", 8) and "cannot reach 127.0.0.1" in last["reason"]


def test_a_bundle_for_another_slot_is_sent_to_nobody(new_fleet, tmp_path, ask):
    there, file = new_fleet(NAMES[:1])
    file.write_text(file.read_text().replace(f'slot = "{NAME}"', 'slot = "faces"'))
    code, document, _ = ask("deploy", release(tmp_path, 1), "--to", file)
    assert code == 2 and "canary has the slot 'faces' in its fleet file" in document["error"]["found"]
    assert not list(there["canary"].home.iterdir())


KILLED = """
import os, signal, sys, threading
from edgeloop.edge.deploy.release_client import ReleaseClient
step, when, left, lock = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1)), threading.Lock()
asked = getattr(ReleaseClient, step)
def dying(*arguments):
    global left
    with lock:
        left -= 1
        last = left == 0
    if last and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = asked(*arguments)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(ReleaseClient, step, dying)
from edgeloop.cli import main
main()
"""
# which of the devices' requests ends the program, and on which side of it; one device in the first wave, two in each
# of the others
EVERY = [(step, when, n) for step in ("trial", "activate") for when in ("before", "after") for n in (1, 2, 4)]


@pytest.mark.timeout(900)
@swept("points", [("activate", "after", 3)], EVERY)
def test_a_rollout_that_was_killed_resumes_and_deploys_nothing_twice(new_fleet, tmp_path, ask, points):
    there, file = new_fleet(NAMES)
    for version, (step, when, n) in enumerate(points, 1):
        bundle = release(tmp_path, version)
        words = ["deploy", bundle, "--to", file, "--waves", "canaries,3,100%", "--probation", "1"]
        command = [sys.executable, "-c", KILLED, step, when, str(n), *map(str, words)]
        assert subprocess.run(command, capture_output=True, timeout=300).returncode == -signal.SIGKILL
        assert eventually(lambda: not any(one.processes() for one in there.values()), 60)
        before = {name: _installed(one.home, version) for name, one in there.items()}
        kept = {row.name for row in read_history().rows if (row.version, row.result) == (version, "committed")}
        assert kept <= {name for name, installed in before.items() if installed}  # it tells of nothing that is not so

        code, document, said = ask(*words, "--resume")
        assert (code, [version_on(one.home) for one in there.values()]) == (0, [version] * 5), (step, when, n)
        results = dict(zip(NAMES, [row["result"] for row in document["devices"]], strict=True))
        assert results == {
            name: "done before" if name in kept else "unchanged" if before[name] else "committed" for name in NAMES
        }, (step, when, n)
        assert f"{len(kept)} of 5 devices have release {version} of {NAME}" in said
        for name, one in there.items():
            assert before[name] in (None, _installed(one.home, version)), "a release was deployed twice"
        (rollout,) = [one for one in read_history().rollouts if one.version == version]
        assert rollout.result == "done"


def _installed(home, version):
    """What tells one installation of a release from another one; None: it was not committed there."""
    if version_on(home) != version:
        return None
    found = (home / "slots" / NAME / "releases" / str(version) / "manifest.json").stat()
    return found.st_ino, found.st_mtime_ns
