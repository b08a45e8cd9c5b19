"""A device whose disk is full, out of inodes or read-only, at every verb: exit 11, true advice, and it still answers.

Each case has a file system of its own, in a user namespace. Every step of a deploy: test_release_faults.py.
"""

import json
import os
import subprocess
import sys

import pytest
from releases import release

from edgeloop.processes.children import owned

PROGRAM = """
import contextlib, io, json, os, subprocess, sys
from pathlib import Path
from edgeloop import cli

how, disk, bundles, signers, device = sys.argv[1:]
fillers = []

def spoil():
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with contextlib.suppress(OSError):
        while how == "no inodes":
            fillers.append(Path(disk, f"filler-{len(fillers)}"))
            fillers[-1].touch()
    if how == "full":
        fillers.append(Path(disk, "filler"))
        with contextlib.suppress(OSError), fillers[0].open("wb", buffering=0) as file:
            while file.write(bytes(1 << 12)):
                pass

def mend():
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    for filler in fillers:
        filler.unlink(missing_ok=True)

def verb(*words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = cli.run([*words, "--json"])
    error = json.loads(out.getvalue().splitlines()[-1]).get("error") or {}
    seen.append([words[0], code, error.get("found", ""), error.get("advice", "")])

def deploy(version):
    options = ["--variant", "int8", "--runtime", "litert", "--probation", "1"]
    verb("deploy", f"{bundles}/{version}", "--to", device, *options)

seen = []
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=50", "none", disk], check=True)
spoil()
deploy(1)
mend()
deploy(1)
deploy(2)
spoil()
deploy(2)
deploy(3)
verb("enroll", device, "--signers", signers)
verb("rollback", device)
verb("run", device)
verb("run", device, "--http", "0", "--systemd")
mend()
deploy(3)
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def namespaces():
    """Skips where nobody may mount anything."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, timeout=180).returncode:
        pytest.skip("no user namespaces: a test cannot have a file system of its own")


@pytest.mark.parametrize(
    ("how", "reason", "way_out"),
    [
        ("read-only", "Read-only file system", "Make the file system writable"),
        pytest.param(
            *("full", "No space left on device, 0 bytes are free", "Free some space there"), marks=pytest.mark.faults
        ),
        pytest.param(*("no inodes", "bytes are free and no inode is", "Remove some files"), marks=pytest.mark.faults),
    ],
    ids=["read-only", "full", "no inodes"],
)
def test_a_disk_that_refuses_is_exit_11_and_what_runs_there_stays(
    namespaces, tmp_path, device_python, how, reason, way_out
):
    disk, signers = tmp_path / "disk", tmp_path / "signers"
    disk.mkdir()
    for version in (1, 2, 3):
        release(tmp_path / "bundles", version)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True, timeout=180)
    signers.write_text(f"me {(tmp_path / 'key.pub').read_text()}")
    command = ["unshare", "-rm", sys.executable, "-c", PROGRAM, how, disk, tmp_path / "bundles", signers]
    environment = {**os.environ, "EDGELOOP_HOME": str(disk / "home"), "EDGELOOP_FLEET": str(tmp_path / "fleet.json")}
    sample = subprocess.PIPE
    with owned([*command, f"local:{device_python}"], stdin=sample, stdout=sample, env=environment) as child:
        said, _ = child.communicate(b"[0, 0, 0, 0]\n", timeout=300)
    seen = json.loads(said.splitlines()[-1])
    codes = [(verb, code) for verb, code, _, _ in seen]
    refused = [("deploy", 11), ("enroll", 11), ("rollback", 11)]
    assert codes == [
        ("deploy", 11),
        ("deploy", 0),
        ("deploy", 0),
        ("deploy", 0),  # it changes nothing, so it writes nothing
        *refused,
        ("run", 0),
        ("run", 11),
        ("deploy", 0),
    ], seen
    for _, code, found, advice in seen:
        if code:
            assert f"cannot write {disk / 'home'}" in found and reason in found and way_out in advice
    stays = [advice.split(". ")[0] for verb, code, _, advice in seen if code and verb in ("deploy", "rollback")]
    assert stays == ["Nothing was installed", "Release 2 still runs", "Release 2 still runs"]
