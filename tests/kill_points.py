"""Kills a deploy at each step that changes the disk, one after the other, and says what each kill left.

    python kill_points.py SCENARIO FOLDER STRIDE    each STRIDEth step; a JSON list of {point, step, left, then, rest}

It is a program of its own because it forks: a test's process may have threads.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from fault_points import points
from matrix_bundles import ENTRY, NAME, Deployer, running, slot, write_bundle

KILLED = 9
MOST = 1000  # steps, of some 60


def main(scenario: str, folder: Path, stride: int) -> None:
    os.fsync = lambda handle: None  # type: ignore[assignment]  # a kill loses nothing that the kernel has; a power cut does
    bundles = {version: write_bundle(folder / f"bundle-{version}", version) for version in (1, 2, 3)}
    prepared = folder / "prepared"
    for version in {"first": (), "next": (1, 2), "repair": (1, 2, 3), "rollback": (1, 2, 3)}[scenario]:
        Deployer(prepared).deploy(bundles[version])
    if scenario == "repair":
        damage = Path(slot(prepared).current) / ENTRY
        damage.write_bytes(b"\0" * damage.stat().st_size)
    seen: list[dict] = []
    for sample in (range(0, MOST, stride), range(1, MOST)):  # a sample, and then the last steps one by one
        for point in sample:
            if seen and point <= seen[-1]["point"]:
                continue
            home = folder / f"home-{point}"
            if prepared.exists():
                shutil.copytree(prepared, home, symlinks=True)
            step = _killed(scenario, home, bundles, point)
            if step is None:
                shutil.rmtree(home)
                break
            left = running(home) if scenario != "repair" else _version(home)
            seen.append({"point": point, "step": step, "left": left, **_again(scenario, home, bundles)})
            shutil.rmtree(home)
    print(json.dumps(seen))


def _work(scenario: str, home: Path, bundles: dict[int, Path]) -> str:
    deployer = Deployer(home)
    if scenario == "rollback":
        return str(deployer.ask("rollback", slot=NAME)["version"])
    return str(deployer.deploy(bundles[1 if scenario == "first" else 3])["result"])


def _killed(scenario: str, home: Path, bundles: dict[int, Path], point: int) -> str | None:
    """What the step was that the kill came before; None: it was done before so many steps."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def before(what: str, paths: tuple[Path, ...]) -> None:
            nonlocal count
            if count == point:
                os.write(writing, f"{what} {' -> '.join(p.name for p in paths)}".encode())
                os._exit(KILLED)  # as SIGKILL: nothing is flushed, no block is left in order
            count += 1

        with points(before):
            _work(scenario, home, bundles)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as words:
        step = words.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED), code
    return step if code == KILLED else None


def _again(scenario: str, home: Path, bundles: dict[int, Path]) -> dict:
    """The same once more, whole; and what lies in the slot then."""
    if scenario == "rollback" and Deployer(home).told()["previous"] is None:
        result = "done"  # the kill came after it held
    else:
        result = _work(scenario, home, bundles)
    place = Path(slot(home).path)
    return {
        "then": running(home),
        "result": result,
        "rest": sorted([*os.listdir(place), *(f"releases/{name}" for name in os.listdir(place / "releases"))]),
    }


def _version(home: Path) -> int:
    """What `current` names, which in this scenario is damaged until it is repaired."""
    return int(Path(slot(home).current).readlink().name.split(".")[0])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
