"""The wheel holds what a user without a checkout needs, and can pass itself on to a device environment."""

import subprocess
import sys
import zipfile

import pytest


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=root, check=True, capture_output=True, timeout=120)
    (path,) = folder.glob("edgeloop-*.whl")
    return path


def test_every_module_and_every_lock_is_in_the_wheel(root, wheel):
    files = [path for path in root.glob("*/edgeloop/**/*") if path.suffix in {".py", ".in", ".txt"} and path.is_file()]
    expected = {path.relative_to(path.parents[-len(root.parts) - 1]).as_posix() for path in files}
    assert len(expected) > 30
    assert expected - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_the_built_page_is_in_the_wheel_and_no_source_of_it(root, wheel):
    static = root / "browser/edgeloop/browser/static"
    if not static.is_dir():
        pytest.skip("the browser files are not built: run make setup")
    names = zipfile.ZipFile(wheel).namelist()
    built = {path.relative_to(static.parents[2]).as_posix() for path in static.rglob("*") if path.is_file()}
    assert "edgeloop/browser/static/page/index.html" in built
    assert built - set(names) == set()
    assert [name for name in names if "node_modules" in name or name.endswith((".ts", ".tsx"))] == []


def test_an_installed_edgeloop_copies_itself_whole(wheel, tmp_path):
    installed, device = tmp_path / "installed", tmp_path / "device"
    zipfile.ZipFile(wheel).extractall(installed)  # what pip does with a wheel, programs aside
    copy = (
        "import sys; from pathlib import Path; sys.path[:0] = [sys.argv[1]];"
        "from edgeloop.setup import copy_edgeloop; copy_edgeloop(Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", copy, str(installed), str(device)], check=True, timeout=60)

    def files(folder):
        paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

    assert files(device) == files(installed)
    # the copy stands alone: nothing but it and the standard library on the path
    look = "import sys; sys.path[:0] = [sys.argv[1]]; import edgeloop.errors as e; print(e.__file__)"
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", look, str(device)], check=True, capture_output=True, text=True, timeout=60
    )
    assert found.stdout.startswith(str(device))
